//! Networks put together at random, the same for the same seed: convolutions (strides, dilations, groups, borders),
//! BatchNorm, activations, sums, concatenations, pools and linear layers, in chains, residual blocks and parallel
//! branches with odd sizes and numbers of channels. It depends on the graph alone, so any test can include it.

use syncbn_ir::training::Generator;
use syncbn_ir::{Builder, DType, Graph, GraphError, Value};

struct Random {
    net: Builder,
    generator: Generator,
    layers: usize,
}

/// A network with one data input `x [n, 3, 5, 5]` and the output `logits [n, 3]`, and sometimes `features`.
pub fn random_network(seed: u64, dtype: DType) -> Result<Graph, GraphError> {
    let mut random = Random {
        net: Builder::new(&format!("random{seed}"), dtype),
        generator: Generator(seed),
        layers: 0,
    };
    let mut x = random.net.input("x", &[3, 5, 5])?;
    for _ in 0..2 + random.below(2) {
        x = random.block(x)?;
    }
    if random.below(3) == 0 {
        // What fusion would like to keep to itself is read from outside.
        random.net.output("features", x);
    }
    let y = random.head(x)?;
    random.net.output("logits", y);
    Ok(random.net.finish())
}

impl Random {
    fn below(&mut self, n: usize) -> usize {
        (self.generator.bits() % n as u64) as usize
    }

    fn name(&mut self) -> String {
        self.layers += 1;
        format!("layer{}", self.layers)
    }

    /// Sizes after the batch.
    fn sizes(&self, x: Value) -> Vec<usize> {
        let sizes = self.net.ty(x).map(|ty| ty.shape.sizes(0));
        sizes.unwrap_or_default().split_off(1)
    }

    fn activation(&mut self, x: Value) -> Result<Value, GraphError> {
        match self.below(7) {
            0 | 1 => self.net.relu(x),
            2 => self.net.silu(x),
            3 => self.net.clip(x, -0.5, 1.0),
            4 => self.net.sigmoid(x),
            5 => {
                // Spelt out, as exporters do.
                let gate = self.net.sigmoid(x)?;
                self.net.mul(gate, x)
            }
            _ => Ok(x),
        }
    }

    /// A convolution with `channels` channels (a multiple of its groups) that keeps or shrinks the image.
    fn conv(&mut self, x: Value, channels: usize, shrink: bool) -> Result<Value, GraphError> {
        let (name, sizes) = (self.name(), self.sizes(x));
        let kernel = [1, 3][self.below(2)];
        let dilation = if kernel == 3 && self.below(4) == 0 { 2 } else { 1 };
        let stride = if shrink { 2 } else { 1 };
        let divisors: Vec<usize> = (1..=sizes[0])
            .filter(|g| sizes[0].is_multiple_of(*g) && channels.is_multiple_of(*g))
            .collect();
        let groups = divisors[self.below(divisors.len())];
        let bias = self.below(2) == 0;
        let conv = self.net.conv2d(&name, x, channels).kernel(kernel).stride(stride);
        let conv = conv.padding(dilation * (kernel / 2)).dilation(dilation);
        conv.groups(groups).bias(bias).build()
    }

    fn batch_norm(&mut self, x: Value) -> Result<Value, GraphError> {
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

    fn layer(&mut self, x: Value, channels: usize, shrink: bool) -> Result<Value, GraphError> {
        let mut y = self.conv(x, channels, shrink)?;
        if self.below(5) > 0 {
            y = self.batch_norm(y)?;
        }
        self.activation(y)
    }

    fn residual(&mut self, x: Value) -> Result<Value, GraphError> {
        let sizes = self.sizes(x);
        let channels = [sizes[0], 2, 3, 4][self.below(4)];
        let shrink = sizes[1] > 2 && self.below(2) == 0;
        let y = self.layer(x, channels, shrink)?;
        let y = self.conv(y, channels, false)?;
        let y = self.batch_norm(y)?;
        let shortcut = if shrink || channels != sizes[0] {
            let y = self.conv(x, channels, shrink)?;
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
            let mut y = self.layer(x, channels, false)?;
            if self.below(2) == 0 {
                y = self.layer(y, channels, false)?;
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

    fn pool(&mut self, x: Value) -> Result<Value, GraphError> {
        if self.sizes(x)[1] < 3 {
            return self.net.max_pool(x, 3).stride(1).padding(1).build();
        }
        let (ceil, count) = (self.below(2) == 0, self.below(2) == 0);
        match self.below(2) {
            0 => self.net.max_pool(x, 2).stride(2).ceil_mode(ceil).build(),
            _ => {
                let pool = self.net.average_pool(x, 3).stride(2).padding(1);
                pool.ceil_mode(ceil).count_include_pad(count).build()
            }
        }
    }

    fn block(&mut self, x: Value) -> Result<Value, GraphError> {
        match self.below(8) {
            0..=2 => self.residual(x),
            3 | 4 => self.branches(x),
            5 => {
                let y = self.layer(x, 3, false)?;
                let (name, c) = (self.name(), self.sizes(y)[0]);
                let gate = self.net.global_average_pool(y)?;
                let gate = self.net.conv2d(&name, gate, c).build()?;
                let gate = self.net.sigmoid(gate)?;
                self.net.mul(y, gate)
            }
            6 => self.pool(x),
            _ => {
                // A BatchNorm that reads what an activation wrote, and a dense connection.
                let y = self.batch_norm(x)?;
                let y = self.activation(y)?;
                let y = self.conv(y, 2, false)?;
                self.net.concat(&[x, y], 1)
            }
        }
    }

    fn head(&mut self, x: Value) -> Result<Value, GraphError> {
        let pooled = self.below(3) > 0;
        let x = if pooled {
            self.net.global_average_pool(x)?
        } else {
            x
        };
        let mut x = self.net.flatten(x)?;
        if self.below(3) == 0 {
            let (name, bias) = (self.name(), self.below(2) == 0);
            x = self.net.linear(&name, x, 4).bias(bias).build()?;
            x = self.batch_norm(x)?;
            x = self.activation(x)?;
        }
        self.net.linear("head", x, 3).build()
    }
}
