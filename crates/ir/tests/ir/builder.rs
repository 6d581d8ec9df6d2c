//! The builder: names, start values and errors.

use crate::networks::random;
use proptest::prelude::*;
use syncbn_ir::{Builder, DType, initial_state, print, verify};

#[test]
fn a_network_reads_as_it_is_built() {
    let mut net = Builder::new("net", DType::F32);
    let x = net.input("x", &[3, 8]).unwrap();
    let y = net
        .scope("stem", |net| {
            let y = net
                .conv1d("conv", x, 4)
                .kernel(3)
                .padding(1)
                .bias(false)
                .build()?;
            net.batch_norm("bn", y)
        })
        .unwrap();
    let y = net.flatten(y).unwrap();
    let y = net.linear("head", y, 2).build().unwrap();
    net.output("y", y);
    let expected = r#"graph "net" {
  %0 = input "x" data : f32[batch, 3, 8]
  %1 = parameter "stem.conv.weight" trained kaiming_normal(9) : f32[4, 3, 3]
  %2 = conv(%0, %1) {strides = [1], pads = [1, 1], dilations = [1], groups = 1} : f32[batch, 4, 8] "stem.conv"
  %3 = parameter "stem.bn.weight" trained fill(1) : f32[4]
  %4 = parameter "stem.bn.bias" trained fill(0) : f32[4]
  %5 = statistic "stem.bn.running_mean" fill(0) : f32[4]
  %6 = statistic "stem.bn.running_var" fill(1) : f32[4]
  %7 = batch_norm(%2, %3, %4, %5, %6) {epsilon = 1e-5, momentum = 0.1, running_var = pytorch} : f32[batch, 4, 8] "stem.bn"
  %8 = reshape(%7) {shape = [batch, 32]} : f32[batch, 32] "reshape_0"
  %9 = parameter "head.weight" trained kaiming_normal(32) : f32[2, 32]
  %10 = matmul(%8, %9) {transpose_b = true} : f32[batch, 2] "head"
  %11 = parameter "head.bias" trained fill(0) : f32[2]
  %12 = binary(%10, %11) {function = add} : f32[batch, 2] "head"
  return output "y" %12
}
"#;
    assert_eq!(print(&net.finish()), expected);
}

#[test]
fn kaiming_values_have_their_deviation_and_depend_on_the_seed() {
    let mut net = Builder::new("net", DType::F32);
    let x = net.input("x", &[50]).unwrap();
    net.linear("a", x, 200).build().unwrap();
    net.linear("b", x, 200).build().unwrap();
    let graph = net.finish();
    let state = initial_state(&graph, 1).unwrap();
    let values = &state.parameters["a.weight"].data;
    let var = values.iter().map(|v| v * v).sum::<f64>() / 10_000.0;
    assert!((var - 2.0 / 50.0).abs() < 0.002, "variance {var}");
    assert_eq!(state, initial_state(&graph, 1).unwrap());
    assert_ne!(state, initial_state(&graph, 2).unwrap());
    assert_ne!(values, &state.parameters["b.weight"].data);
    assert_eq!(state.parameters["a.bias"].data, [0.0; 200]);
}

#[test]
fn mistakes_are_errors_that_name_the_layer() {
    let mut net = Builder::new("net", DType::F32);
    let x = net.input("x", &[3, 8, 8]).unwrap();
    let vector = net.input("v", &[]).unwrap();
    net.conv2d("conv", x, 4).build().unwrap();
    let messages = [
        net.conv2d("conv", x, 4).build().unwrap_err(),
        net.input("x", &[1]).unwrap_err(),
        net.conv2d("wide", x, 4).groups(2).build().unwrap_err(),
        net.conv2d("flat", vector, 4).build().unwrap_err(),
        net.conv1d("axes", x, 4).build().unwrap_err(),
        net.conv2d("large", x, 4).kernel(9).build().unwrap_err(),
        net.batch_norm("bn", vector).unwrap_err(),
        net.max_pool(x, 2).padding(2).build().unwrap_err(),
        net.add(x, vector).unwrap_err(),
    ]
    .map(|e| e.to_string());
    let parts = [
        "conv.weight",
        "\"x\"",
        "wide",
        "flat",
        "axes",
        "large",
        "bn",
        "max_pool",
        "broadcast",
    ];
    for (message, part) in messages.iter().zip(parts) {
        assert!(message.contains(part), "{part}: {message}");
    }
}

proptest! {
    #[test]
    fn what_the_builder_makes_passes_the_verifier(seed: u64) {
        prop_assert_eq!(verify(&random(seed)), Ok(()));
    }
}
