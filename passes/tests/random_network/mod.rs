//! Networks put together at random, the same for the same seed: convolutions (kernels, strides, dilations and padding
//! that differ by axis, groups, borders), BatchNorm, activations, sums, concatenations, pools and linear layers, in
//! chains, residual blocks and parallel branches with odd sizes and numbers of channels; layers that are called twice,
//! and results with several readers. It depends on the graph alone, so any test can include it.

mod blocks;
mod head;
mod layers;

use syncbn_ir::training::Generator;
use syncbn_ir::{Builder, DType, Graph, GraphError, Value};

struct Random {
    net: Builder,
    dtype: DType,
    generator: Generator,
    layers: usize,
}

/// A network with one data input `x [n, 3, 5, 5]` and the output `logits [n, 3]`, and sometimes `features`.
pub fn random_network(seed: u64, dtype: DType) -> Result<Graph, GraphError> {
    let mut random = Random {
        net: Builder::new(&format!("random{seed}"), dtype),
        dtype,
        generator: Generator(seed),
        layers: 0,
    };
    let mut x = random.net.input("x", &[3, 5, 5])?;
    for _ in 0..2 + random.below(2) {
        x = random.noise(x)?;
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
}
