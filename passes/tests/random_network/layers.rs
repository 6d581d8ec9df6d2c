//! Single layers.

use syncbn_ir::ops::{Binary, BinaryFunction, Identity, Reshape, Unary, UnaryFunction, literal};
use syncbn_ir::{GraphError, Literal, Shape, Value};

use super::Random;

impl Random {
    fn unary(&mut self, function: UnaryFunction, x: Value) -> Result<Value, GraphError> {
        self.net.node(Unary { function }, &[x])
    }

    fn binary(&mut self, function: BinaryFunction, a: Value, b: Value) -> Result<Value, GraphError> {
        self.net.node(Binary { function }, &[a, b])
    }

    fn number(&mut self, value: f64) -> Result<Value, GraphError> {
        let value = Literal::scalar(self.dtype, value);
        self.net.node(literal(value), &[])
    }

    pub(super) fn activation(&mut self, x: Value) -> Result<Value, GraphError> {
        match self.below(15) {
            0 | 1 => self.net.relu(x),
            2 => self.net.silu(x),
            3 => self.net.clip(x, -0.5, 1.0),
            4 => self.net.sigmoid(x),
            5 => self.unary(UnaryFunction::HardSwish, x),
            6 => self.unary(UnaryFunction::LeakyRelu { alpha: 0.1 }, x),
            7 => self.unary(UnaryFunction::Tanh, x),
            8 => self.unary(
                UnaryFunction::HardSigmoid {
                    alpha: 0.2,
                    beta: 0.5,
                },
                x,
            ),
            9 => self.unary(UnaryFunction::Gelu, x),
            10 => self.unary(UnaryFunction::GeluTanh, x),
            11..=13 => self.spelt_out(x),
            _ => Ok(x),
        }
    }

    /// An activation in primitive operators, as exporters write it.
    fn spelt_out(&mut self, x: Value) -> Result<Value, GraphError> {
        match self.below(4) {
            0 => {
                let gate = self.net.sigmoid(x)?;
                self.net.mul(gate, x)
            }
            1 => {
                let (alpha, beta) = (1.0 / 6.0, 0.5);
                let gate = self.unary(UnaryFunction::HardSigmoid { alpha, beta }, x)?;
                self.net.mul(x, gate)
            }
            2 => {
                let (root, one) = (self.number(std::f64::consts::SQRT_2)?, self.number(1.0)?);
                let half = self.number(0.5)?;
                let scaled = self.binary(BinaryFunction::Div, x, root)?;
                let erf = self.unary(UnaryFunction::Erf, scaled)?;
                let sum = self.net.add(erf, one)?;
                let product = self.net.mul(x, sum)?;
                self.net.mul(product, half)
            }
            _ => {
                // The offset is an expression of its own, as tracing leaves it.
                let (one, two, six) = (self.number(1.0)?, self.number(2.0)?, self.number(6.0)?);
                let three = self.net.add(one, two)?;
                let offset = self.net.add(x, three)?;
                let gate = self.net.clip(offset, 0.0, 6.0)?;
                let product = self.net.mul(x, gate)?;
                self.binary(BinaryFunction::Div, product, six)
            }
        }
    }

    /// What computes nothing, as exporters leave it, or nothing at all.
    pub(super) fn noise(&mut self, x: Value) -> Result<Value, GraphError> {
        match self.below(12) {
            0 => self.net.node(Identity {}, &[x]),
            1 => {
                let zero = self.number(0.0)?;
                self.net.add(x, zero)
            }
            2 => {
                let sizes = self.sizes(x);
                let flat = self.net.flatten(x)?;
                let shape = Shape::batched(&sizes);
                self.net.node(Reshape { shape }, &[flat])
            }
            _ => Ok(x),
        }
    }

    fn kernel(&mut self, size: usize) -> usize {
        match [1, 1, 2, 3, 3, 3, 5, 7][self.below(8)] {
            k if size < 3 => k.min(3),
            k => k,
        }
    }

    /// Steps that shrink an image along one axis or both, where it is large enough.
    pub(super) fn strides(&mut self, x: Value) -> [usize; 2] {
        let sizes = self.sizes(x);
        let strides = [[2, 2], [2, 2], [2, 1], [1, 2], [3, 2]][self.below(5)];
        [0, 1].map(|axis| if sizes[1 + axis] > 2 { strides[axis] } else { 1 })
    }

    /// A convolution with `channels` channels (a multiple of its groups) that keeps the image but for its strides.
    pub(super) fn conv(
        &mut self,
        x: Value,
        channels: usize,
        strides: [usize; 2],
    ) -> Result<Value, GraphError> {
        let (name, sizes) = (self.name(), self.sizes(x));
        let mut kernel = [self.kernel(sizes[1].min(sizes[2])); 2];
        if self.below(4) == 0 {
            kernel[1] = self.kernel(sizes[2]);
        }
        let (mut dilations, mut pads) = ([1; 2], [0; 4]);
        for axis in 0..2 {
            if (2..=3).contains(&kernel[axis]) && self.below(4) == 0 {
                dilations[axis] = 2;
            }
            let total = dilations[axis] * (kernel[axis] - 1);
            pads[axis] = if self.below(4) == 0 {
                self.below(total + 1)
            } else {
                total / 2
            };
            pads[axis + 2] = total - pads[axis];
        }
        let divisors: Vec<usize> = (1..=sizes[0])
            .filter(|g| sizes[0].is_multiple_of(*g) && channels.is_multiple_of(*g))
            .collect();
        let groups = divisors[self.below(divisors.len())];
        let bias = self.below(2) == 0;
        let conv = self.net.conv2d(&name, x, channels).kernel_sizes(&kernel);
        let conv = conv.strides(&strides).pads(&pads).dilations(&dilations);
        conv.groups(groups).bias(bias).build()
    }

    pub(super) fn batch_norm(&mut self, x: Value) -> Result<Value, GraphError> {
        let name = format!("{}.bn", self.name());
        match self.below(4) {
            0 => self
                .net
                .batch_norm_with(&name, x)
                .momentum(0.3)
                .epsilon(1e-3)
                .build(),
            _ => self.net.batch_norm(&name, x),
        }
    }

    /// The layer that computed `of`, with the parameters that it has, on another operand.
    pub(super) fn again(&mut self, of: Value, x: Value) -> Result<Value, GraphError> {
        let graph = self.net.graph();
        let (op, mut operands) = (graph.op(of.node).clone(), graph.operands(of.node));
        operands[0] = x;
        self.net.node(op, &operands)
    }

    pub(super) fn pool(&mut self, x: Value) -> Result<Value, GraphError> {
        let sizes = self.sizes(x);
        if sizes[1].min(sizes[2]) < 3 {
            return self.net.max_pool(x, 3).stride(1).padding(1).build();
        }
        let (ceil, count) = (self.below(2) == 0, self.below(2) == 0);
        let strides = [[2, 2], [2, 2], [1, 2], [2, 1]][self.below(4)];
        let pads = [[1, 1, 1, 1], [1, 1, 1, 1], [0, 1, 1, 0], [0, 0, 1, 1]][self.below(4)];
        match self.below(3) {
            0 => self.net.max_pool(x, 2).strides(&strides).ceil_mode(ceil).build(),
            1 => self
                .net
                .max_pool(x, 3)
                .strides(&strides)
                .pads(&pads)
                .ceil_mode(ceil)
                .build(),
            _ => {
                let pool = self.net.average_pool(x, 3).strides(&strides).pads(&pads);
                pool.ceil_mode(ceil).count_include_pad(count).build()
            }
        }
    }
}
