//! The text form: round trips, and errors with their places.

use syncbn_ir::{parse, print};

const TEXT: &str = r#"graph "small \"net\"" {
  %0 = input "x" data : f32[batch, 3, 8, 8]
  %1 = parameter "conv.weight" trained kaiming_normal(27) : f32[8, 3, 3, 3]
  %2 = parameter "bn.weight" trained fill(1) : f32[8]
  %3 = parameter "bn.bias" frozen [0.0, -0.0, 1.5, inf, -inf, nan, 1e-5, 3.4028235e38] : f32[8]
  %4 = statistic "bn.running_mean" elided(00ff00ff00ff00ff) : f32[8] @statistics+64
  %5 = statistic "bn.running_var" fill(0.1) : f32[8]
  %6 = constant [1, -9223372036854775808] : i64[2]
  %7 = constant splat(0.5) : f32[1000, 3]
  %8 = conv(%0, %1) {strides = [1, 1], pads = [1, 1, 1, 1], dilations = [1, 1], groups = 1, activation = clip(0, 6.5)} : f32[batch, 8, 8, 8]:nhwc @step+4096 "stem.conv"
  %9:5 = batch_norm(%8, %2, %3, %4, %5) {epsilon = 1e-5, momentum = 0.1, running_var = pytorch, training = true, onnx_training = true} : f32[batch, 8, 8, 8]:blocked16, f64[8], f64[8], f32[8], f32[8]
  %10:2 = max_pool(%9) {kernel = [2, 2], strides = [2, 2], pads = [0, 0, 0, 0], dilations = [1, 1]} : f32[batch, 8, 4, 4], u8[batch, 8, 4, 4] "pool"
  return
    output "y" %10,
    statistic "bn.running_mean" %9#3
}
"#;

#[test]
fn printing_a_parsed_graph_gives_the_same_text() {
    let graph = parse(TEXT).unwrap();
    assert_eq!(print(&graph), TEXT);
}

#[test]
fn names_comments_and_blanks_are_free() {
    let text = "graph \"g\" { // a comment\n%x = input \"x\" target:i64[batch] %y.1=identity(%x):i64[batch] return }";
    let expected = "graph \"g\" {\n  %0 = input \"x\" target : i64[batch]\n  %1 = identity(%0) : i64[batch]\n  return\n}\n";
    assert_eq!(print(&parse(text).unwrap()), expected);
}
