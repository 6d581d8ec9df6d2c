//! From an image to the output.

use syncbn_ir::ops::{Reduce, ReduceFunction, Reshape, Transpose};
use syncbn_ir::{GraphError, Shape, Value};

use super::Random;

impl Random {
    pub(super) fn head(&mut self, x: Value) -> Result<Value, GraphError> {
        let mut x = self.features(x)?;
        if self.below(3) == 0 {
            let (name, bias) = (self.name(), self.below(2) == 0);
            x = self.net.linear(&name, x, 4).bias(bias).build()?;
            x = self.batch_norm(x)?;
            x = self.activation(x)?;
        }
        self.net.linear("head", x, 3).build()
    }

    /// `[n, c, h, w]` to `[n, f]`.
    fn features(&mut self, x: Value) -> Result<Value, GraphError> {
        let sizes = self.sizes(x);
        let mean = |axes: &[usize]| Reduce {
            function: ReduceFunction::Mean,
            axes: axes.to_vec(),
            keep_dims: false,
        };
        match self.below(8) {
            0..=2 => {
                let x = self.net.global_average_pool(x)?;
                self.net.flatten(x)
            }
            3 => self.net.flatten(x),
            4 => self.net.node(mean(&[2, 3]), &[x]),
            5 => {
                // Channels last.
                let permutation = vec![0, 2, 3, 1];
                let x = self.net.node(Transpose { permutation }, &[x])?;
                match self.below(2) {
                    0 => self.net.node(mean(&[1, 2]), &[x]),
                    _ => self.net.flatten(x),
                }
            }
            6 => {
                let shape = Shape::batched(&[sizes[0], sizes[1] * sizes[2]]);
                let x = self.net.node(Reshape { shape }, &[x])?;
                self.net.node(mean(&[2]), &[x])
            }
            _ => {
                // A window as large as the image.
                let name = self.name();
                let conv = self.net.conv2d(&name, x, 4).kernel_sizes(&sizes[1..]);
                let x = conv.build()?;
                self.net.flatten(x)
            }
        }
    }
}
