//! Networks of nodes that the builder does not offer.

use std::sync::Arc;

use syncbn_ir::ops::{
    BatchNorm, Binary, BinaryFunction, Cast, Conv, MatMul, Parameter, ParameterData, Reduce, ReduceFunction,
    Reshape, RunningVar, Slice, Statistic, Transpose, Unary, UnaryFunction, literal,
};
use syncbn_ir::training::Generator;
use syncbn_ir::{DType, Graph, GraphError, Literal, Output, OutputKind, Shape, TensorType, Value};

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

    /// Mean and variance of every channel, axis 1 of three.
    fn moments(&mut self, x: Value) -> Result<(Value, Value), GraphError> {
        let mean_of = |keep_dims: bool| Reduce {
            function: ReduceFunction::Mean,
            axes: vec![0, 2],
            keep_dims,
        };
        let mean = self.0.add_value(mean_of(false), "", &[x])?;
        let spread = self.0.add_value(mean_of(true), "", &[x])?;
        let off = self.binary(BinaryFunction::Sub, x, spread)?;
        let square = self.binary(BinaryFunction::Mul, off, off)?;
        Ok((mean, self.0.add_value(mean_of(false), "", &[square])?))
    }

    fn matmul(&mut self, a: Value, b: Value) -> Result<Value, GraphError> {
        let op = MatMul {
            transpose_a: false,
            transpose_b: false,
            wide: false,
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
pub fn weight_standardised() -> Result<Graph, GraphError> {
    standardised(false)
}

/// The same, with the statistics of the weights computed by the graph, as exporters write it.
pub fn weight_standardised_by_graph() -> Result<Graph, GraphError> {
    standardised(true)
}

fn standardised(by_graph: bool) -> Result<Graph, GraphError> {
    let mut net = Raw(Graph::new("ws"));
    let x = net.input(&[2, 4, 4])?;
    let w = net.parameter("w", &[3, 2, 3, 3])?;
    let (scale, bias) = (net.parameter("scale", &[3])?, net.parameter("bias", &[3])?);
    let reshape = |sizes: &[usize]| Reshape {
        shape: Shape::fixed(sizes),
    };
    let flat = net.0.add_value(reshape(&[1, 3, 18]), "", &[w])?;
    let (mean, var) = match by_graph {
        true => net.moments(flat)?,
        false => (net.statistic("mean", 3, 0.0)?, net.statistic("var", 3, 1.0)?),
    };
    let flat = net.batch_norm("ws", &[flat, scale, bias, mean, var], !by_graph)?;
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
pub fn shared_batch_norm() -> Result<Graph, GraphError> {
    let mut net = Raw(Graph::new("shared"));
    let x = net.input(&[4])?;
    let (scale, bias) = (net.parameter("scale", &[4])?, net.parameter("bias", &[4])?);
    let (mean, var) = (net.statistic("mean", 4, 0.5)?, net.statistic("var", 4, 2.0)?);
    let w = net.parameter("w", &[4, 4])?;
    let y = net.matmul(x, w)?;
    let y = net.batch_norm("first", &[y, scale, bias, mean, var], false)?;
    let y = net.matmul(y, w)?;
    let y = net.batch_norm("second", &[y, scale, bias, mean, var], false)?;
    let mut graph = net.output(y);
    // The old value of a statistic that the step updates in place.
    let kind = OutputKind::Output;
    graph.outputs.push(Output {
        kind,
        name: "before".to_string(),
        value: mean,
    });
    Ok(graph)
}

/// A scale that is also multiplied with an activation: its gradient is the sum of a global and a local part.
pub fn shared_scale() -> Result<Graph, GraphError> {
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
pub fn arithmetic() -> Result<Graph, GraphError> {
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
            step: std::num::NonZeroUsize::MIN,
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
