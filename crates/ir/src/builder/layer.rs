//! Layers with parameters: convolution, linear, BatchNorm.

use super::{Builder, refused};
use crate::graph::{GraphError, Value};
use crate::ops::{BatchNorm, Binary, BinaryFunction, Conv, MatMul, ParameterData, RunningVar};

impl Builder {
    /// A convolution over one spatial axis to `channels` channels: kernel 1, stride 1, no padding, with bias.
    pub fn conv1d(&mut self, name: &str, x: Value, channels: usize) -> ConvLayer<'_> {
        self.conv(1, name, x, channels)
    }

    /// As [`Builder::conv1d`] over two spatial axes.
    pub fn conv2d(&mut self, name: &str, x: Value, channels: usize) -> ConvLayer<'_> {
        self.conv(2, name, x, channels)
    }

    /// As [`Builder::conv1d`] over three spatial axes.
    pub fn conv3d(&mut self, name: &str, x: Value, channels: usize) -> ConvLayer<'_> {
        self.conv(3, name, x, channels)
    }

    fn conv(&mut self, axes: usize, name: &str, x: Value, channels: usize) -> ConvLayer<'_> {
        ConvLayer {
            name: name.to_string(),
            x,
            channels,
            kernel: vec![1; axes],
            bias: true,
            op: Conv {
                strides: vec![1; axes],
                pads: vec![0; 2 * axes],
                dilations: vec![1; axes],
                groups: 1,
                moments: false,
                activation: None,
            },
            net: self,
        }
    }

    /// `x w^T + b` to `features` features, with bias.
    pub fn linear(&mut self, name: &str, x: Value, features: usize) -> LinearLayer<'_> {
        LinearLayer {
            net: self,
            name: name.to_string(),
            x,
            features,
            bias: true,
        }
    }

    /// BatchNorm with epsilon 1e-5 and momentum 0.1.
    pub fn batch_norm(&mut self, name: &str, x: Value) -> Result<Value, GraphError> {
        self.batch_norm_with(name, x).build()
    }

    /// BatchNorm whose attributes can be set.
    pub fn batch_norm_with(&mut self, name: &str, x: Value) -> BatchNormLayer<'_> {
        BatchNormLayer {
            net: self,
            name: name.to_string(),
            x,
            op: BatchNorm {
                epsilon: 1e-5,
                momentum: 0.1,
                running_var: RunningVar::Pytorch,
                training: false,
                onnx_training: false,
            },
        }
    }

    fn bias_of(&mut self, name: &str, size: usize) -> Result<Value, GraphError> {
        self.parameter(&format!("{name}.bias"), &[size], ParameterData::Fill(0.0))
    }
}

/// A convolution in the making; [`ConvLayer::build`] adds it.
#[derive(Debug)]
pub struct ConvLayer<'b> {
    net: &'b mut Builder,
    name: String,
    x: Value,
    channels: usize,
    kernel: Vec<usize>,
    bias: bool,
    op: Conv,
}

impl ConvLayer<'_> {
    /// Size of the kernel along every axis.
    pub fn kernel(mut self, size: usize) -> Self {
        self.kernel.fill(size);
        self
    }

    /// Size of the kernel axis by axis.
    pub fn kernel_sizes(mut self, sizes: &[usize]) -> Self {
        self.kernel = sizes.to_vec();
        self
    }

    /// Step between windows.
    pub fn stride(mut self, stride: usize) -> Self {
        self.op.strides.fill(stride);
        self
    }

    /// Step between windows axis by axis.
    pub fn strides(mut self, strides: &[usize]) -> Self {
        self.op.strides = strides.to_vec();
        self
    }

    /// Zeros around the input, on all sides.
    pub fn padding(mut self, padding: usize) -> Self {
        self.op.pads.fill(padding);
        self
    }

    /// Zeros before each axis, then after each axis.
    pub fn pads(mut self, pads: &[usize]) -> Self {
        self.op.pads = pads.to_vec();
        self
    }

    /// Step between elements of the kernel.
    pub fn dilation(mut self, dilation: usize) -> Self {
        self.op.dilations.fill(dilation);
        self
    }

    /// Step between elements of the kernel axis by axis.
    pub fn dilations(mut self, dilations: &[usize]) -> Self {
        self.op.dilations = dilations.to_vec();
        self
    }

    /// Number of groups; as many as channels makes it depthwise.
    pub fn groups(mut self, groups: usize) -> Self {
        self.op.groups = groups;
        self
    }

    /// Whether a bias is added.
    pub fn bias(mut self, bias: bool) -> Self {
        self.bias = bias;
        self
    }

    /// Adds the layer.
    pub fn build(self) -> Result<Value, GraphError> {
        let path = self.net.path(&self.name);
        let c = self.net.channels(&path, "conv", self.x)?;
        if self.op.groups == 0 || !c.is_multiple_of(self.op.groups) {
            let message = format!("group {} does not divide {c} input channels", self.op.groups);
            return Err(refused(&path, "conv", &message));
        }
        let per_group = c / self.op.groups;
        let fan_in = self.kernel.iter().fold(per_group, |n, &k| n.saturating_mul(k));
        let sizes = [&[self.channels, per_group], self.kernel.as_slice()].concat();
        let weight = format!("{}.weight", self.name);
        let weight = self
            .net
            .parameter(&weight, &sizes, ParameterData::KaimingNormal { fan_in })?;
        let mut operands = vec![self.x, weight];
        if self.bias {
            operands.push(self.net.bias_of(&self.name, self.channels)?);
        }
        self.net.graph.add_value(self.op, &path, &operands)
    }
}

/// A linear layer in the making; [`LinearLayer::build`] adds it.
#[derive(Debug)]
pub struct LinearLayer<'b> {
    net: &'b mut Builder,
    name: String,
    x: Value,
    features: usize,
    bias: bool,
}

impl LinearLayer<'_> {
    /// Whether a bias is added.
    pub fn bias(mut self, bias: bool) -> Self {
        self.bias = bias;
        self
    }

    /// Adds the layer.
    pub fn build(self) -> Result<Value, GraphError> {
        let path = self.net.path(&self.name);
        let fan_in = self.net.channels(&path, "matmul", self.x)?;
        let data = ParameterData::KaimingNormal { fan_in };
        let weight = format!("{}.weight", self.name);
        let weight = self.net.parameter(&weight, &[self.features, fan_in], data)?;
        let product = MatMul {
            transpose_a: false,
            transpose_b: true,
            wide: false,
        };
        let y = self.net.graph.add_value(product, &path, &[self.x, weight])?;
        if !self.bias {
            return Ok(y);
        }
        let bias = self.net.bias_of(&self.name, self.features)?;
        let add = Binary {
            function: BinaryFunction::Add,
        };
        self.net.graph.add_value(add, &path, &[y, bias])
    }
}

/// A BatchNorm in the making; [`BatchNormLayer::build`] adds it.
#[derive(Debug)]
pub struct BatchNormLayer<'b> {
    net: &'b mut Builder,
    name: String,
    x: Value,
    op: BatchNorm,
}

impl BatchNormLayer<'_> {
    /// Added to the variance.
    pub fn epsilon(mut self, epsilon: f64) -> Self {
        self.op.epsilon = epsilon;
        self
    }

    /// Share of the new value in running statistics, as PyTorch's `momentum`.
    pub fn momentum(mut self, momentum: f64) -> Self {
        self.op.momentum = momentum;
        self
    }

    /// Rule of the running variance.
    pub fn running_var(mut self, rule: RunningVar) -> Self {
        self.op.running_var = rule;
        self
    }

    /// Adds the layer.
    pub fn build(self) -> Result<Value, GraphError> {
        let path = self.net.path(&self.name);
        let c = [self.net.channels(&path, "batch_norm", self.x)?];
        let name = |part: &str| format!("{}.{part}", self.name);
        let operands = [
            self.x,
            self.net
                .parameter(&name("weight"), &c, ParameterData::Fill(1.0))?,
            self.net.parameter(&name("bias"), &c, ParameterData::Fill(0.0))?,
            self.net.statistic(&name("running_mean"), &c, 0.0)?,
            self.net.statistic(&name("running_var"), &c, 1.0)?,
        ];
        self.net.graph.add_value(self.op, &path, &operands)
    }
}
