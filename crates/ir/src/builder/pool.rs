//! Pools over windows.

use super::Builder;
use crate::graph::{GraphError, Value};
use crate::ops::{AveragePool, MaxPool, Window};

impl Builder {
    /// Maximum over windows of `kernel` along every spatial axis; the stride is the kernel's size, no padding.
    pub fn max_pool(&mut self, x: Value, kernel: usize) -> PoolLayer<'_> {
        self.pool(x, kernel, false)
    }

    /// Mean over windows; otherwise as [`Builder::max_pool`]. Padding counts in the divisor, as in PyTorch.
    pub fn average_pool(&mut self, x: Value, kernel: usize) -> PoolLayer<'_> {
        self.pool(x, kernel, true)
    }

    fn pool(&mut self, x: Value, kernel: usize, average: bool) -> PoolLayer<'_> {
        let axes = self.ty(x).map_or(0, |ty| ty.shape.rank().saturating_sub(2));
        PoolLayer {
            net: self,
            x,
            average,
            window: Window {
                kernel: vec![kernel; axes],
                strides: vec![kernel; axes],
                pads: vec![0; 2 * axes],
                dilations: vec![1; axes],
            },
            ceil_mode: false,
            count_include_pad: true,
        }
    }
}

/// A pool in the making; [`PoolLayer::build`] adds it.
#[derive(Debug)]
pub struct PoolLayer<'b> {
    net: &'b mut Builder,
    x: Value,
    average: bool,
    window: Window,
    ceil_mode: bool,
    count_include_pad: bool,
}

impl PoolLayer<'_> {
    /// Step between windows.
    pub fn stride(mut self, stride: usize) -> Self {
        self.window.strides.fill(stride);
        self
    }

    /// Step between windows axis by axis.
    pub fn strides(mut self, strides: &[usize]) -> Self {
        self.window.strides = strides.to_vec();
        self
    }

    /// Padding on all sides.
    pub fn padding(mut self, padding: usize) -> Self {
        self.window.pads.fill(padding);
        self
    }

    /// Padding before each axis, then after each axis.
    pub fn pads(mut self, pads: &[usize]) -> Self {
        self.window.pads = pads.to_vec();
        self
    }

    /// Step between elements of a window.
    pub fn dilation(mut self, dilation: usize) -> Self {
        self.window.dilations.fill(dilation);
        self
    }

    /// Whether output sizes round up.
    pub fn ceil_mode(mut self, ceil_mode: bool) -> Self {
        self.ceil_mode = ceil_mode;
        self
    }

    /// Whether padding counts in an average's divisor.
    pub fn count_include_pad(mut self, count: bool) -> Self {
        self.count_include_pad = count;
        self
    }

    /// Adds the pool.
    pub fn build(self) -> Result<Value, GraphError> {
        let Window {
            kernel,
            strides,
            pads,
            dilations,
        } = self.window;
        let ceil_mode = self.ceil_mode;
        if self.average {
            let op = AveragePool {
                kernel,
                strides,
                pads,
                dilations,
                ceil_mode,
                count_include_pad: self.count_include_pad,
            };
            return self.net.node(op, &[self.x]);
        }
        let op = MaxPool {
            kernel,
            strides,
            pads,
            dilations,
            ceil_mode,
        };
        self.net.node(op, &[self.x])
    }
}
