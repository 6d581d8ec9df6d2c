//! Networks in Rust, in words that read like the network:
//!
//! ```
//! use syncbn_ir::{DType, GraphError, Builder};
//!
//! # fn main() -> Result<(), GraphError> {
//! let mut net = Builder::new("small", DType::F32);
//! let x = net.input("x", &[3, 32, 32])?;
//! let x = net.scope("stem", |net| {
//!     let y = net.conv2d("conv", x, 32).kernel(3).padding(1).bias(false).build()?;
//!     let y = net.batch_norm("bn", y)?;
//!     net.silu(y)
//! })?;
//! let x = net.global_average_pool(x)?;
//! let x = net.flatten(x)?;
//! let y = net.linear("head", x, 10).build()?;
//! net.output("logits", y);
//! let graph = net.finish();
//! # assert!(syncbn_ir::verify(&graph).is_ok());
//! # Ok(())
//! # }
//! ```
//!
//! Parameters have PyTorch's names, scopes joined by points: `stem.conv.weight`, `stem.bn.running_mean`. They
//! start as Kaiming normal (fan-in), biases as 0, BatchNorm as 1/0 with statistics 0/1.

mod layer;
mod pool;

pub use layer::{BatchNormLayer, ConvLayer, LinearLayer};
pub use pool::PoolLayer;

use std::collections::BTreeSet;

use crate::graph::{Graph, GraphError, Output, OutputKind, Value};
use crate::ops::{
    Binary, BinaryFunction, Concat, Input, Op, Parameter, ParameterData, Reduce, ReduceFunction, Reshape,
    Role, Statistic, Unary, UnaryFunction,
};
use crate::types::{DType, Dim, Shape, TensorType};

/// Builds an inference graph; the `differentiate` pass makes it train. Layers that have parameters take a name,
/// which is made unique by [`Builder::scope`].
#[derive(Debug, Clone)]
pub struct Builder {
    graph: Graph,
    dtype: DType,
    scopes: Vec<String>,
    names: BTreeSet<String>,
    unnamed: usize,
}

impl Builder {
    /// An empty network whose tensors have this element type.
    pub fn new(name: &str, dtype: DType) -> Builder {
        Builder {
            graph: Graph::new(name),
            dtype,
            scopes: Vec::new(),
            names: BTreeSet::new(),
            unnamed: 0,
        }
    }

    /// The finished network.
    pub fn finish(self) -> Graph {
        self.graph
    }

    /// The network so far.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// The type of a value.
    pub fn ty(&self, v: Value) -> Option<&TensorType> {
        self.graph.try_type(v)
    }

    /// Everything that `body` names stands under `name`.
    pub fn scope<T>(
        &mut self,
        name: &str,
        body: impl FnOnce(&mut Builder) -> Result<T, GraphError>,
    ) -> Result<T, GraphError> {
        self.scopes.push(name.to_string());
        let result = body(self);
        self.scopes.pop();
        result
    }

    /// A data input of shape `[batch, sizes...]`.
    pub fn input(&mut self, name: &str, sizes: &[usize]) -> Result<Value, GraphError> {
        let op = Input {
            name: name.to_string(),
            role: Role::Data,
            ty: TensorType::batched(self.dtype, sizes),
        };
        self.claim(name, "input")?;
        self.graph.add_value(op, "", &[])
    }

    /// Names a value as an output.
    pub fn output(&mut self, name: &str, value: Value) {
        self.graph.outputs.push(Output {
            kind: OutputKind::Output,
            name: name.to_string(),
            value,
        });
    }

    /// A trained tensor under the current scope.
    pub fn parameter(
        &mut self,
        name: &str,
        sizes: &[usize],
        data: ParameterData,
    ) -> Result<Value, GraphError> {
        let op = Parameter {
            name: self.path(name),
            trained: true,
            ty: TensorType::fixed(self.dtype, sizes),
            data,
        };
        self.claim(&op.name, "parameter")?;
        self.graph.add_value(op, "", &[])
    }

    /// A running statistic under the current scope.
    pub fn statistic(&mut self, name: &str, sizes: &[usize], start: f64) -> Result<Value, GraphError> {
        let op = Statistic {
            name: self.path(name),
            ty: TensorType::fixed(self.dtype, sizes),
            data: ParameterData::Fill(start),
        };
        self.claim(&op.name, "statistic")?;
        self.graph.add_value(op, "", &[])
    }

    /// `a + b`, shapes broadcast.
    pub fn add(&mut self, a: Value, b: Value) -> Result<Value, GraphError> {
        self.binary(BinaryFunction::Add, a, b)
    }

    /// `a * b`, shapes broadcast.
    pub fn mul(&mut self, a: Value, b: Value) -> Result<Value, GraphError> {
        self.binary(BinaryFunction::Mul, a, b)
    }

    fn binary(&mut self, function: BinaryFunction, a: Value, b: Value) -> Result<Value, GraphError> {
        self.node(Binary { function }, &[a, b])
    }

    /// `max(x, 0)`.
    pub fn relu(&mut self, x: Value) -> Result<Value, GraphError> {
        self.unary(UnaryFunction::Relu, x)
    }

    /// `x * sigmoid(x)`.
    pub fn silu(&mut self, x: Value) -> Result<Value, GraphError> {
        self.unary(UnaryFunction::Silu, x)
    }

    /// `1 / (1 + exp(-x))`.
    pub fn sigmoid(&mut self, x: Value) -> Result<Value, GraphError> {
        self.unary(UnaryFunction::Sigmoid, x)
    }

    /// `min(max(x, low), high)`; ReLU6 is `clip(x, 0.0, 6.0)`.
    pub fn clip(&mut self, x: Value, low: f64, high: f64) -> Result<Value, GraphError> {
        self.unary(UnaryFunction::Clip { min: low, max: high }, x)
    }

    fn unary(&mut self, function: UnaryFunction, x: Value) -> Result<Value, GraphError> {
        self.node(Unary { function }, &[x])
    }

    /// Mean over all spatial axes, which stay with size 1.
    pub fn global_average_pool(&mut self, x: Value) -> Result<Value, GraphError> {
        let rank = self.ty(x).map_or(0, |ty| ty.shape.rank());
        let op = Reduce {
            function: ReduceFunction::Mean,
            axes: (2..rank).collect(),
            keep_dims: true,
        };
        self.node(op, &[x])
    }

    /// `[n, c, d...]` to `[n, c * d...]`.
    pub fn flatten(&mut self, x: Value) -> Result<Value, GraphError> {
        let shape = self.ty(x).map(|ty| &ty.shape);
        let size = shape.and_then(|s| Shape(s.0.get(1..)?.to_vec()).elements_per_sample());
        let first = shape.and_then(|s| s.0.first().copied()).unwrap_or(Dim::Batch);
        let shape = Shape(vec![first, Dim::Fixed(size.unwrap_or(0))]);
        self.node(Reshape { shape }, &[x])
    }

    /// Joins values along `axis`; 1 is the channels.
    pub fn concat(&mut self, values: &[Value], axis: usize) -> Result<Value, GraphError> {
        self.node(Concat { axis }, values)
    }

    /// Adds any operator, labelled by its name and a number, and returns its first result. Operands can be those of
    /// another layer, which then shares its parameters.
    pub fn node(&mut self, op: impl Into<Op>, operands: &[Value]) -> Result<Value, GraphError> {
        let op = op.into();
        let label = self.path(&format!("{}_{}", op.name(), self.unnamed));
        self.unnamed += 1;
        self.graph.add_value(op, &label, operands)
    }

    /// The name under the current scope.
    fn path(&self, name: &str) -> String {
        let mut path = self.scopes.clone();
        path.push(name.to_string());
        path.join(".")
    }

    fn claim(&mut self, name: &str, op: &str) -> Result<(), GraphError> {
        if self.names.insert(name.to_string()) {
            return Ok(());
        }
        Err(refused(name, op, "the name is taken"))
    }

    /// Channels (axis 1) of a value.
    fn channels(&self, name: &str, op: &str, x: Value) -> Result<usize, GraphError> {
        let channels = self.ty(x).and_then(|ty| ty.shape.0.get(1)?.fixed());
        channels.ok_or_else(|| refused(name, op, "the input has no channel axis (axis 1)"))
    }
}

fn refused(name: &str, op: &str, message: &str) -> GraphError {
    GraphError::Type {
        name: name.to_string(),
        op: op.to_string(),
        message: message.to_string(),
    }
}
