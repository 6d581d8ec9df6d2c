//! The networks of the tests, all in f64.

use syncbn_ir::ops::Unary;
use syncbn_ir::{Builder, DType, Graph, GraphError, Value};

use crate::raw_networks::{
    arithmetic, shared_batch_norm, shared_scale, weight_standardised, weight_standardised_by_graph,
};

/// Builds a network.
pub type Build = fn() -> Result<Graph, GraphError>;

/// All networks by name.
pub const NETWORKS: &[(&str, Build)] = &[
    ("residual", residual),
    ("mlp", mlp),
    ("squeeze-excite", squeeze_excite),
    ("dense", dense),
    ("strided", strided),
    ("weight-standardised", weight_standardised),
    ("weight-standardised-by-graph", weight_standardised_by_graph),
    ("shared-batch-norm", shared_batch_norm),
    ("shared-scale", shared_scale),
    ("arithmetic", arithmetic),
    ("batch-norm-first", batch_norm_first),
];

fn conv_bn(
    net: &mut Builder,
    name: &str,
    x: Value,
    channels: usize,
    stride: usize,
) -> Result<Value, GraphError> {
    let kernel = if stride == 0 { 1 } else { 3 };
    net.scope(name, |net| {
        let y = net
            .conv2d("conv", x, channels)
            .kernel(kernel)
            .padding(kernel / 2)
            .stride(stride.max(1))
            .bias(false)
            .build()?;
        net.batch_norm("bn", y)
    })
}

fn head(net: &mut Builder, x: Value) -> Result<(), GraphError> {
    let x = net.global_average_pool(x)?;
    let x = net.flatten(x)?;
    let y = net.linear("head", x, 3).build()?;
    net.output("logits", y);
    Ok(())
}

/// A convolution, a BatchNorm and an activation.
pub fn activated(activation: Option<Unary>) -> Result<Graph, GraphError> {
    let mut net = Builder::new("activated", DType::F64);
    let x = net.input("x", &[2, 5, 5])?;
    let mut x = conv_bn(&mut net, "stem", x, 4, 1)?;
    if let Some(activation) = activation {
        x = net.node(activation, &[x])?;
    }
    head(&mut net, x)?;
    Ok(net.finish())
}

/// A stem, a block with an identity shortcut and one with a projection.
pub fn residual() -> Result<Graph, GraphError> {
    let mut net = Builder::new("residual", DType::F64);
    let x = net.input("x", &[2, 5, 5])?;
    let x = conv_bn(&mut net, "stem", x, 4, 1)?;
    let x = net.silu(x)?;
    let y = conv_bn(&mut net, "a1", x, 4, 1)?;
    let y = net.silu(y)?;
    let y = conv_bn(&mut net, "a2", y, 4, 1)?;
    let x = net.add(y, x)?;
    let x = net.silu(x)?;
    let y = conv_bn(&mut net, "b1", x, 6, 2)?;
    let y = net.relu(y)?;
    let y = conv_bn(&mut net, "b2", y, 6, 1)?;
    let shortcut = net.scope("short", |net| {
        let y = net.conv2d("conv", x, 6).stride(2).bias(false).build()?;
        net.batch_norm("bn", y)
    })?;
    let x = net.add(y, shortcut)?;
    let x = net.relu(x)?;
    head(&mut net, x)?;
    Ok(net.finish())
}

fn mlp() -> Result<Graph, GraphError> {
    let mut net = Builder::new("mlp", DType::F64);
    let x = net.input("x", &[5])?;
    let x = net.linear("fc1", x, 6).build()?;
    let x = net.batch_norm("bn1", x)?;
    let x = net.relu(x)?;
    let x = net.linear("fc2", x, 4).bias(false).build()?;
    let x = net.batch_norm("bn2", x)?;
    let x = net.sigmoid(x)?;
    let y = net.linear("head", x, 3).build()?;
    net.output("logits", y);
    Ok(net.finish())
}

fn squeeze_excite() -> Result<Graph, GraphError> {
    let mut net = Builder::new("se", DType::F64);
    let x = net.input("x", &[2, 4, 4])?;
    let x = conv_bn(&mut net, "stem", x, 4, 1)?;
    let x = net.clip(x, 0.0, 1.5)?;
    let gate = net.global_average_pool(x)?;
    let gate = net.conv2d("squeeze", gate, 2).build()?;
    let gate = net.relu(gate)?;
    let gate = net.conv2d("excite", gate, 4).build()?;
    let gate = net.sigmoid(gate)?;
    let y = net.mul(x, gate)?;
    let x = net.add(x, y)?;
    head(&mut net, x)?;
    Ok(net.finish())
}

/// A dense layer, whose second BatchNorm normalises the first one's input again.
pub fn dense() -> Result<Graph, GraphError> {
    let mut net = Builder::new("dense", DType::F64);
    let x = net.input("x", &[3, 6, 6])?;
    let x = net.conv2d("stem", x, 3).kernel(3).padding(1).build()?;
    let y = net.batch_norm("bn", x)?;
    let y = net.relu(y)?;
    let y = net
        .conv2d("grow", y, 2)
        .kernel(3)
        .padding(1)
        .bias(false)
        .build()?;
    let x = net.concat(&[x, y], 1)?;
    let x = net.batch_norm("bn2", x)?;
    let x = net.silu(x)?;
    let a = net.max_pool(x, 3).stride(2).ceil_mode(true).build()?;
    let b = net
        .average_pool(x, 2)
        .stride(2)
        .padding(0)
        .count_include_pad(true)
        .build()?;
    let x = net.concat(&[a, b], 1)?;
    head(&mut net, x)?;
    Ok(net.finish())
}

fn strided() -> Result<Graph, GraphError> {
    let mut net = Builder::new("strided", DType::F64);
    let x = net.input("x", &[4, 9])?;
    let x = net
        .conv1d("a", x, 4)
        .kernel(3)
        .stride(2)
        .groups(4)
        .pads(&[0, 1])
        .build()?;
    let x = net.batch_norm("bn1", x)?;
    let x = net.clip(x, 0.0, 6.0)?;
    let x = net
        .conv1d("b", x, 6)
        .kernel(2)
        .dilation(2)
        .groups(2)
        .bias(false)
        .build()?;
    let x = net
        .batch_norm_with("bn2", x)
        .momentum(0.3)
        .epsilon(1e-3)
        .build()?;
    head(&mut net, x)?;
    Ok(net.finish())
}

fn batch_norm_first() -> Result<Graph, GraphError> {
    let mut net = Builder::new("first", DType::F64);
    let x = net.input("x", &[3])?;
    let x = net.batch_norm("bn", x)?;
    let y = net.linear("head", x, 3).build()?;
    net.output("logits", y);
    Ok(net.finish())
}
