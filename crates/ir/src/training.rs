//! Whole training steps on the reference evaluation: start values and updates. For tests.

use crate::graph::{Graph, OutputKind};
use crate::interpreter::{EvalError, Named, RankInputs, RankOutputs, State, evaluate};
use crate::ops::{Op, ParameterData};
use crate::optimizer::Optimizer;
use crate::tensor::Array;

/// One training step: evaluates the graph, moves the parameters along its `gradient` outputs and takes over
/// its `statistic` outputs. Gradients are rank 0's: after the gradient all-reduce they are the same everywhere.
pub fn train_step(
    graph: &Graph,
    ranks: &[RankInputs],
    state: &mut State,
    optimizer: &impl Optimizer,
) -> Result<Vec<RankOutputs>, EvalError> {
    let outputs = evaluate(graph, ranks, state)?;
    if let Some(first) = outputs.first() {
        for (name, gradient) in first.of_kind(OutputKind::Gradient) {
            optimizer.update(state, name, gradient);
        }
    }
    state.steps += 1;
    if state.statistics.len() != ranks.len() {
        let start = state.statistics.first().cloned().unwrap_or_default();
        state.statistics = vec![start; ranks.len()];
    }
    for (statistics, outputs) in state.statistics.iter_mut().zip(&outputs) {
        for (name, next) in outputs.of_kind(OutputKind::Statistic) {
            statistics.insert(name.to_string(), next.clone());
        }
    }
    Ok(outputs)
}

/// Start values of all parameters and statistics. Random ones depend on the seed and the tensor's name only.
/// They are not those of a compiled executable with `--init`.
pub fn initial_state(graph: &Graph, seed: u64) -> Result<State, EvalError> {
    let mut state = State {
        statistics: vec![Named::new()],
        ..State::default()
    };
    for id in graph.nodes() {
        let (name, ty, data, to) = match graph.op(id) {
            Op::Parameter(p) => (&p.name, &p.ty, &p.data, &mut state.parameters),
            Op::Statistic(s) => (&s.name, &s.ty, &s.data, &mut state.statistics[0]),
            _ => continue,
        };
        let dims = ty.shape.sizes(0);
        let array = match data {
            ParameterData::Values(literal) => literal.to_array(),
            ParameterData::Fill(value) => Array::new(&dims, vec![*value; dims.iter().product()]),
            ParameterData::KaimingNormal { fan_in } => kaiming(&dims, *fan_in, seed, name),
            ParameterData::Elided { .. } => {
                return Err(EvalError::Missing {
                    what: "the value of",
                    name: name.clone(),
                });
            }
        };
        to.insert(name.clone(), array);
    }
    Ok(state)
}

fn kaiming(dims: &[usize], fan_in: usize, seed: u64, name: &str) -> Array {
    let deviation = (2.0 / fan_in as f64).sqrt();
    let mut generator = Generator(seed ^ crate::text::fnv1a(name.as_bytes()));
    let mut array = Array::zeros(dims);
    array
        .data
        .iter_mut()
        .for_each(|x| *x = deviation * generator.normal());
    array
}

/// SplitMix64 (Steele, Lea and Flood 2014): small, and good enough for tests.
#[derive(Debug, Clone)]
pub struct Generator(
    /// The state; any value is a seed.
    pub u64,
);

impl Generator {
    /// The next 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in `[0, 1)`.
    pub fn uniform(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Standard normal (Box and Muller 1958).
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }

    /// An array of standard normal values.
    pub fn array(&mut self, dims: &[usize]) -> Array {
        let mut array = Array::zeros(dims);
        array.data.iter_mut().for_each(|x| *x = self.normal());
        array
    }
}
