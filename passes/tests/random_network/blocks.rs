//! Blocks of layers.

use syncbn_ir::ops::{Reshape, Transpose};
use syncbn_ir::{GraphError, Shape, Value};

use super::Random;

const KEEP: [usize; 2] = [1, 1];

impl Random {
    pub(super) fn block(&mut self, x: Value) -> Result<Value, GraphError> {
        match self.below(12) {
            0..=2 => self.residual(x),
            3 | 4 => self.branches(x),
            5 => self.gated(x),
            6 => self.pool(x),
            7 => self.dense(x),
            8 | 9 => self.tied(x),
            10 => self.two_readers(x),
            _ => self.shuffled(x),
        }
    }

    fn layer(&mut self, x: Value, channels: usize, strides: [usize; 2]) -> Result<Value, GraphError> {
        let mut y = self.conv(x, channels, strides)?;
        if self.below(5) > 0 {
            y = self.batch_norm(y)?;
        }
        self.activation(y)
    }

    fn residual(&mut self, x: Value) -> Result<Value, GraphError> {
        let sizes = self.sizes(x);
        let channels = [sizes[0], 2, 3, 4][self.below(4)];
        let strides = if self.below(2) == 0 { self.strides(x) } else { KEEP };
        let y = self.layer(x, channels, strides)?;
        let y = self.conv(y, channels, KEEP)?;
        let y = self.batch_norm(y)?;
        let shortcut = if strides != KEEP || channels != sizes[0] {
            let y = self.conv(x, channels, strides)?;
            if self.below(3) > 0 { self.batch_norm(y)? } else { y }
        } else {
            x
        };
        let sum = if self.below(2) == 0 {
            self.net.add(y, shortcut)?
        } else {
            self.net.add(shortcut, y)?
        };
        self.activation(sum)
    }

    fn branches(&mut self, x: Value) -> Result<Value, GraphError> {
        let mut parts = Vec::new();
        for _ in 0..2 + self.below(2) {
            let channels = 1 + self.below(3);
            let mut y = self.layer(x, channels, KEEP)?;
            if self.below(2) == 0 {
                y = self.layer(y, channels, KEEP)?;
            }
            parts.push(y);
        }
        match self.below(4) {
            0 => parts.push(x),
            1 => parts.push(parts[0]),
            2 => parts.push(self.net.max_pool(x, 3).stride(1).padding(1).build()?),
            _ => {}
        }
        self.net.concat(&parts, 1)
    }

    /// Squeeze and excitation.
    fn gated(&mut self, x: Value) -> Result<Value, GraphError> {
        let y = self.layer(x, 3, KEEP)?;
        let (name, c) = (self.name(), self.sizes(y)[0]);
        let gate = self.net.global_average_pool(y)?;
        let gate = self.net.conv2d(&name, gate, c).build()?;
        let gate = self.net.sigmoid(gate)?;
        self.net.mul(y, gate)
    }

    /// A BatchNorm that reads what an activation wrote, and a dense connection.
    fn dense(&mut self, x: Value) -> Result<Value, GraphError> {
        let y = self.batch_norm(x)?;
        let y = self.activation(y)?;
        let y = self.conv(y, 2, KEEP)?;
        self.net.concat(&[x, y], 1)
    }

    /// A convolution or a BatchNorm, or both, that are called twice.
    fn tied(&mut self, x: Value) -> Result<Value, GraphError> {
        let (channels, which) = (self.sizes(x)[0], self.below(3));
        let conv = self.conv(x, channels, KEEP)?;
        let norm = self.batch_norm(conv)?;
        let y = self.activation(norm)?;
        let y = match which {
            0 => self.conv(y, channels, KEEP)?,
            _ => self.again(conv, y)?,
        };
        let y = match which {
            1 => self.batch_norm(y)?,
            _ => self.again(norm, y)?,
        };
        self.activation(y)
    }

    /// A BatchNorm whose result an activation and something else read.
    fn two_readers(&mut self, x: Value) -> Result<Value, GraphError> {
        let channels = 1 + self.below(4);
        let y = self.conv(x, channels, KEEP)?;
        let y = self.batch_norm(y)?;
        let a = self.activation(y)?;
        let b = match self.below(3) {
            0 => self.conv(y, channels, KEEP)?,
            1 => self.activation(y)?,
            _ => y,
        };
        match self.below(2) {
            0 => self.net.add(a, b),
            _ => self.net.concat(&[a, b], 1),
        }
    }

    /// Channels in another order, after a grouped convolution as a rule.
    fn shuffled(&mut self, x: Value) -> Result<Value, GraphError> {
        let channels = [4, 6][self.below(2)];
        let y = self.layer(x, channels, KEEP)?;
        let sizes = self.sizes(y);
        let apart = [2, channels / 2, sizes[1], sizes[2]];
        let shape = Shape::batched(&apart);
        let y = self.net.node(Reshape { shape }, &[y])?;
        let permutation = vec![0, 2, 1, 3, 4];
        let y = self.net.node(Transpose { permutation }, &[y])?;
        let shape = Shape::batched(&sizes);
        let y = self.net.node(Reshape { shape }, &[y])?;
        self.layer(y, 3, KEEP)
    }
}
