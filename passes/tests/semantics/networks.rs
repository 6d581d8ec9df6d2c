//! The networks of the tests, all in f64.

use std::sync::Arc;

use syncbn_ir::ops::{
    BatchNorm, Binary, BinaryFunction, Cast, Conv, MatMul, Parameter, ParameterData, Reshape, RunningVar,
    Slice, Statistic, Transpose, Unary, UnaryFunction, literal,
};
use syncbn_ir::training::Generator;
use syncbn_ir::{Builder, DType, Graph, GraphError, Literal, Output, OutputKind, Shape, TensorType, Value};

/// All networks by name.
pub const NETWORKS: &[(&str, fn() -> Result<Graph, GraphError>)] = &[
    ("residual", residual),
    ("mlp", mlp),
    ("squeeze-excite", squeeze_excite),
    ("dense", dense),
    ("strided", strided),
    ("weight-standardised", weight_standardised),
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

fn dense() -> Result<Graph, GraphError> {
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

/// A graph without the builder, for what the builder does not offer.
struct Raw(Graph);

impl Raw {
    fn parameter(&mut self, name: &str, sizes: &[usize]) -> Result<Value, GraphError> {
        let mut generator = Generator(name.bytes().map(u64::from).sum());
        let values = generator.array(sizes).data;
        let data = ParameterData::Values(Arc::new(Literal::from_f64(DType::F64, sizes, &values)));
        let (name, ty) = (name.to_string(), TensorType::fixed(DType::F64, sizes));
        let op = Parameter {
            name,
            trained: true,
            ty,
            data,
        };
        self.0.add_value(op, "", &[])
    }

    fn statistic(&mut self, name: &str, c: usize, start: f64) -> Result<Value, GraphError> {
        let (name, ty) = (name.to_string(), TensorType::fixed(DType::F64, &[c]));
        let data = ParameterData::Fill(start);
        self.0.add_value(Statistic { name, ty, data }, "", &[])
    }

    fn input(&mut self, sizes: &[usize]) -> Result<Value, GraphError> {
        let ty = TensorType::batched(DType::F64, sizes);
        let role = syncbn_ir::ops::Role::Data;
        self.0.add_value(
            syncbn_ir::ops::Input {
                name: "x".to_string(),
                role,
                ty,
            },
            "x",
            &[],
        )
    }

    fn batch_norm(
        &mut self,
        name: &str,
        operands: &[Value],
        onnx_training: bool,
    ) -> Result<Value, GraphError> {
        let op = BatchNorm {
            epsilon: 1e-5,
            momentum: 0.1,
            running_var: RunningVar::Pytorch,
            training: false,
            onnx_training,
        };
        self.0.add_value(op, name, operands)
    }

    fn binary(&mut self, function: BinaryFunction, a: Value, b: Value) -> Result<Value, GraphError> {
        self.0.add_value(Binary { function }, "", &[a, b])
    }

    fn matmul(&mut self, a: Value, b: Value) -> Result<Value, GraphError> {
        let op = MatMul {
            transpose_a: false,
            transpose_b: false,
        };
        self.0.add_value(op, "", &[a, b])
    }

    fn output(mut self, value: Value) -> Graph {
        let kind = OutputKind::Output;
        self.0.outputs.push(Output {
            kind,
            name: "logits".to_string(),
            value,
        });
        self.0
    }
}

/// The weights of a convolution go through a BatchNorm of their own.
fn weight_standardised() -> Result<Graph, GraphError> {
    let mut net = Raw(Graph::new("ws"));
    let x = net.input(&[2, 4, 4])?;
    let w = net.parameter("w", &[3, 2, 3, 3])?;
    let (scale, bias) = (net.parameter("scale", &[3])?, net.parameter("bias", &[3])?);
    let (mean, var) = (net.statistic("mean", 3, 0.0)?, net.statistic("var", 3, 1.0)?);
    let reshape = |sizes: &[usize]| Reshape {
        shape: Shape::fixed(sizes),
    };
    let flat = net.0.add_value(reshape(&[1, 3, 18]), "", &[w])?;
    let flat = net.batch_norm("ws", &[flat, scale, bias, mean, var], true)?;
    let w = net.0.add_value(reshape(&[3, 2, 3, 3]), "", &[flat])?;
    let conv = Conv {
        strides: vec![1, 1],
        pads: vec![0; 4],
        dilations: vec![1, 1],
        groups: 1,
        moments: false,
        activation: None,
    };
    let y = net.0.add_value(conv, "conv", &[x, w])?;
    let (scale, bias) = (net.parameter("scale2", &[3])?, net.parameter("bias2", &[3])?);
    let (mean, var) = (net.statistic("mean2", 3, 0.0)?, net.statistic("var2", 3, 1.0)?);
    let y = net.batch_norm("bn", &[y, scale, bias, mean, var], false)?;
    let silu = Unary {
        function: UnaryFunction::Silu,
    };
    let y = net.0.add_value(silu, "", &[y])?;
    let y = net.0.add_value(
        Reshape {
            shape: Shape::batched(&[12]),
        },
        "",
        &[y],
    )?;
    let head = net.parameter("head", &[12, 3])?;
    let y = net.matmul(y, head)?;
    Ok(net.output(y))
}

/// One BatchNorm module that is called twice.
fn shared_batch_norm() -> Result<Graph, GraphError> {
    let mut net = Raw(Graph::new("shared"));
    let x = net.input(&[4])?;
    let (scale, bias) = (net.parameter("scale", &[4])?, net.parameter("bias", &[4])?);
    let (mean, var) = (net.statistic("mean", 4, 0.5)?, net.statistic("var", 4, 2.0)?);
    let w = net.parameter("w", &[4, 4])?;
    let y = net.matmul(x, w)?;
    let y = net.batch_norm("first", &[y, scale, bias, mean, var], false)?;
    let y = net.matmul(y, w)?;
    let y = net.batch_norm("second", &[y, scale, bias, mean, var], false)?;
    Ok(net.output(y))
}

/// A scale that is also multiplied with an activation: its gradient is the sum of a global and a local part.
fn shared_scale() -> Result<Graph, GraphError> {
    let mut net = Raw(Graph::new("shared scale"));
    let x = net.input(&[3])?;
    let (scale, bias) = (net.parameter("scale", &[3])?, net.parameter("bias", &[3])?);
    let (mean, var) = (net.statistic("mean", 3, 0.0)?, net.statistic("var", 3, 1.0)?);
    let w = net.parameter("w", &[3, 3])?;
    let y = net.matmul(x, w)?;
    let z = net.batch_norm("bn", &[y, scale, bias, mean, var], false)?;
    let z = net.binary(BinaryFunction::Mul, z, scale)?;
    Ok(net.output(z))
}

/// Operators that networks use between layers.
fn arithmetic() -> Result<Graph, GraphError> {
    let mut net = Raw(Graph::new("arithmetic"));
    let x = net.input(&[4, 6])?;
    let w = net.parameter("w", &[6])?;
    let v = net.parameter("v", &[4, 1])?;
    let unread = net.parameter("unread", &[2])?;
    let two = net
        .0
        .add_value(literal(Literal::scalar(DType::F64, 2.5)), "", &[])?;
    let y = net.binary(BinaryFunction::Mul, x, w)?;
    let squares = net.binary(BinaryFunction::Mul, v, v)?;
    let bounded = net.binary(BinaryFunction::Add, squares, two)?;
    let y = net.binary(BinaryFunction::Div, y, bounded)?;
    let y = net.binary(BinaryFunction::Sub, two, y)?;
    let y = net.0.add_value(
        Transpose {
            permutation: vec![0, 2, 1],
        },
        "",
        &[y],
    )?;
    let middle = net.0.add_value(
        Slice {
            axis: 1,
            begin: 1,
            end: 4,
        },
        "",
        &[y],
    )?;
    let narrow = net.0.add_value(Cast { dtype: DType::F32 }, "", &[middle])?;
    let wide = net.0.add_value(Cast { dtype: DType::F64 }, "", &[narrow])?;
    let sigmoid = Unary {
        function: UnaryFunction::Sigmoid,
    };
    let gate = net.0.add_value(sigmoid, "", &[wide])?;
    let y = net.binary(BinaryFunction::Mul, gate, wide)?;
    let y = net.0.add_value(
        Reshape {
            shape: Shape::batched(&[12]),
        },
        "",
        &[y],
    )?;
    let w2 = net.parameter("w2", &[3, 12])?;
    let w2 = net.0.add_value(
        Transpose {
            permutation: vec![1, 0],
        },
        "",
        &[w2],
    )?;
    let y = net.matmul(y, w2)?;
    let mut graph = net.output(y);
    // A parameter that an output reads, but not the loss.
    let kind = OutputKind::Output;
    graph.outputs.push(Output {
        kind,
        name: "unread".to_string(),
        value: unread,
    });
    Ok(graph)
}
