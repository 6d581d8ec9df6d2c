//! Networks put together at random: splits, fusion and memory hold for combinations that nobody thought of.

use syncbn_ir::training::Generator;
use syncbn_ir::{Builder, DType, Graph, GraphError, Value, initial_state};
use syncbn_passes::{BatchNormMode, Options, inference_graph, training_graph};

use crate::memory::check_memory;
use crate::ranks::check_split;
use crate::support::options;

struct Random {
    net: Builder,
    generator: Generator,
    layers: usize,
}

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.generator.bits() % n
    }

    fn name(&mut self) -> String {
        self.layers += 1;
        format!("layer{}", self.layers)
    }

    fn channels(&self, x: Value) -> usize {
        self.net.ty(x).unwrap().shape.sizes(0)[1]
    }

    fn activation(&mut self, x: Value) -> Result<Value, GraphError> {
        match self.below(5) {
            0 => self.net.relu(x),
            1 => self.net.silu(x),
            2 => self.net.clip(x, -0.5, 1.0),
            3 => {
                // Spelt out, as exporters do.
                let gate = self.net.sigmoid(x)?;
                self.net.mul(gate, x)
            }
            _ => Ok(x),
        }
    }

    /// A layer that keeps the spatial sizes.
    fn layer(&mut self, x: Value) -> Result<Value, GraphError> {
        let (name, c) = (self.name(), self.channels(x));
        let kernel = [1, 3][self.below(2) as usize];
        let (bias, depthwise) = (self.below(2) == 0, self.below(3) == 0);
        let mut conv = self.net.conv2d(&name, x, if depthwise { c } else { 3 });
        conv = conv.kernel(kernel).padding(kernel / 2).bias(bias);
        let y = if depthwise {
            conv.groups(c).build()?
        } else {
            conv.build()?
        };
        let y = match self.below(4) {
            0 => y,
            _ => self.net.batch_norm(&format!("{name}.bn"), y)?,
        };
        self.activation(y)
    }

    fn block(&mut self, x: Value) -> Result<Value, GraphError> {
        match self.below(6) {
            0 | 1 => {
                let y = self.layer(x)?;
                let y = self.layer(y)?;
                match self.channels(y) == self.channels(x) {
                    true => {
                        let sum = if self.below(2) == 0 {
                            self.net.add(x, y)?
                        } else {
                            self.net.add(y, x)?
                        };
                        self.activation(sum)
                    }
                    false => self.net.concat(&[x, y], 1),
                }
            }
            2 => {
                let (a, b) = (self.layer(x)?, self.layer(x)?);
                self.net.concat(&[a, b, a], 1)
            }
            3 => {
                let y = self.layer(x)?;
                let (name, c) = (self.name(), self.channels(y));
                let gate = self.net.global_average_pool(y)?;
                let gate = self.net.conv2d(&name, gate, c).build()?;
                let gate = self.net.sigmoid(gate)?;
                self.net.mul(y, gate)
            }
            4 => self.net.max_pool(x, 3).stride(1).padding(1).build(),
            _ => {
                // A BatchNorm that reads what an activation wrote.
                let name = self.name();
                let y = self.net.batch_norm(&name, x)?;
                self.activation(y)
            }
        }
    }
}

fn network(seed: u64) -> Result<Graph, GraphError> {
    let mut random = Random {
        net: Builder::new("random", DType::F64),
        generator: Generator(seed),
        layers: 0,
    };
    let mut x = random.net.input("x", &[3, 4, 4])?;
    for _ in 0..3 {
        x = random.block(x)?;
    }
    if random.below(3) == 0 {
        // What fusion would like to keep to itself is read from outside.
        random.net.output("features", x);
    }
    let y = random.net.global_average_pool(x)?;
    let y = random.net.flatten(y)?;
    let y = random.net.linear("head", y, 3).build()?;
    random.net.output("logits", y);
    Ok(random.net.finish())
}

#[test]
fn splits_do_not_matter() {
    for seed in 0..40 {
        let network = network(seed).unwrap();
        // Biases before a BatchNorm have a gradient of 0, of which only rounding is left to compare.
        check_split(&format!("seed {seed}"), &network, &[3, 0, 2], 1e-9);
    }
}

#[test]
fn memory_holds_what_is_read() {
    for seed in 0..40 {
        let network = network(seed).unwrap();
        let state = initial_state(&network, 3).unwrap();
        let modes = [BatchNormMode::Sync, BatchNormMode::Local, BatchNormMode::Frozen];
        let batch_norm = modes[seed as usize % modes.len()];
        let options = Options {
            batch_norm,
            ..options()
        };
        let (graph, report) = training_graph(&network, &options).unwrap();
        check_memory(&format!("seed {seed}"), &graph, &report, &state);
        let layout = report.plan.unwrap().layout;
        let (graph, report) = inference_graph(&network, &options, Some(&layout)).unwrap();
        check_memory(&format!("seed {seed}, inference"), &graph, &report, &state);
    }
}
