//! Random small networks, made with the builder.

use syncbn_ir::training::Generator;
use syncbn_ir::{Builder, DType, Graph, GraphError, Value};

/// A valid network of a few layers that depends on the seed alone. Its input is `x [batch, 3, 7, 6]`.
pub fn random(seed: u64) -> Graph {
    let mut random = Generator(seed);
    let dtype = if random.bits().is_multiple_of(2) {
        DType::F32
    } else {
        DType::F64
    };
    let mut net = Builder::new("random \"network\"", dtype);
    build(&mut net, &mut random).unwrap();
    net.finish()
}

fn build(net: &mut Builder, random: &mut Generator) -> Result<(), GraphError> {
    let mut x = net.input("x", &[3, 7, 6])?;
    for layer in 0..1 + random.bits() % 6 {
        x = net.scope(&format!("layer{layer}"), |net| add_layer(net, random, x))?;
        if random.bits().is_multiple_of(4) {
            net.output(&format!("after\n{layer}"), x);
        }
    }
    let pooled = net.global_average_pool(x)?;
    let flat = net.flatten(pooled)?;
    let y = net
        .linear("head", flat, 4)
        .bias(random.bits().is_multiple_of(2))
        .build()?;
    net.output("y", y);
    Ok(())
}

fn add_layer(net: &mut Builder, random: &mut Generator, x: Value) -> Result<Value, GraphError> {
    let pick = |random: &mut Generator, n: u64| (random.bits() % n) as usize;
    match pick(random, 9) {
        0 => {
            let (stride, dilation) = (1 + pick(random, 2), 1 + pick(random, 2));
            let conv = net.conv2d("conv", x, 2 + pick(random, 3)).kernel(3).padding(2);
            conv.stride(stride).dilation(dilation).build()
        }
        1 => {
            let channels = net.ty(x).and_then(|ty| ty.shape.0[1].fixed()).unwrap();
            let conv = net.conv2d("conv", x, channels).groups(channels).bias(false);
            conv.kernel_sizes(&[1, 2]).pads(&[0, 1, 0, 0]).build()
        }
        2 => net.batch_norm("bn", x),
        3 => net.silu(x),
        4 => net.clip(x, 0.0, 6.0),
        5 => {
            let y = net.conv2d("shortcut", x, 3).build()?;
            let z = net.conv2d("main", x, 3).kernel(3).padding(1).build()?;
            net.add(y, z)
        }
        6 => net.max_pool(x, 2).stride(1).padding(1).ceil_mode(true).build(),
        7 => net
            .average_pool(x, 3)
            .stride(2)
            .padding(1)
            .count_include_pad(false)
            .build(),
        _ => {
            let y = net.sigmoid(x)?;
            let z = net.relu(x)?;
            net.concat(&[x, y, z], 1)
        }
    }
}
