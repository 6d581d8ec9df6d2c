//! `choose-schedules`: says of each convolution and matrix product how it is computed.
//!
//! Before:
//! ```text
//! %y = conv(%x, %w) {strides = [1, 1], pads = [1, 1, 1, 1], dilations = [1, 1], groups = 1}
//! ```
//! After:
//! ```text
//! %y = conv(%x, %w) {..., groups = 1, schedule = direct(lanes = 16, pixels = 14, vectors = 2, rows = 8)}
//! ```
//!
//! Each of [`CANDIDATES`] says whether it takes a node, with which blocking, and what that costs on the machine; the one
//! with the least predicted time is chosen, of equals the earlier; one that rounds more than the others only where it is
//! so many times as fast as the best of them ([`Candidate::least_gain`]). The choice depends on the node's types, the largest
//! batch and the machine alone, so that all ranks agree, and on whether weights are there before the step, as in inference.
//!
//! On a [`Gpu`] a node is computed on tensor cores where they take it (`implicit_gemm`), in the tile with the least predicted
//! time; images that the layouts leave in another order than channels innermost are not worth a copy.
//!
//! It leaves alone other operators, convolutions of something without a batch, element types other than those of the
//! target, nodes that have a schedule already (an edited text keeps its own), and everything where neither [`Machine`] nor
//! [`Gpu`] is given. [`crate::Options::schedules`] overrides the choice by name, for which there must be one of them, and
//! [`crate::Options::winograd`] leaves out candidates.

mod cost;
mod depthwise;
mod direct;
mod gpu;
mod implicit_gemm;
mod machine;
mod overrides;
mod pointwise;
mod polyphase;
mod product;
mod report;
mod winograd;

use syncbn_ir::schedule::{Convolution, product_sizes};
use syncbn_ir::{DType, Dim, Graph, NodeId, Op, Schedule};

use crate::analysis::any_depends_on_batch;
use crate::error::PassError;
use crate::options::{Mode, Options};
use crate::pass::{Changes, Pass, PassContext};

pub use cost::Cost;
pub use gpu::Gpu;
pub use machine::Machine;
pub use overrides::Override;
pub use report::schedule_report;

/// The pass.
pub struct ChooseSchedules;

impl Pass for ChooseSchedules {
    fn name(&self) -> &'static str {
        "choose-schedules"
    }

    fn summary(&self) -> &'static str {
        "says how convolutions and matrix products are computed, by a model of the processor or GPU"
    }

    fn run(&self, graph: &mut Graph, cx: &mut PassContext) -> Result<Changes, PassError> {
        let (target, winograd, batch_bound) = (cx.options.target, cx.options.winograd, cx.batch_bound());
        let best = |graph: &Graph, id: NodeId| match (target.machine, target.gpu) {
            (Some(machine), _) => {
                let problem = Problem::of(graph, id, machine, &cx.options)?;
                Some(problem.best(winograd)?.0)
            }
            (None, Some(gpu)) => gpu.best(graph, id, batch_bound),
            (None, None) => None,
        };
        if target.machine.is_none() && target.gpu.is_none() {
            overrides::check_none(&cx.options)?;
            return Ok(0);
        }
        let mut changes = overrides::apply(graph, &cx.options)?;
        for id in graph.topological()? {
            if graph.schedule(id).is_some() {
                continue;
            }
            if let Some(schedule) = best(graph, id) {
                graph.set_schedule(id, Some(schedule));
                changes += 1;
            }
        }
        Ok(changes)
    }
}

/// A way to compute a node.
pub trait Candidate: Sync {
    /// The schedule that computes the node so, with blocking for the machine; None where it cannot.
    fn accepts(&self, problem: &Problem) -> Option<Schedule>;

    /// What a schedule of this kind costs; None for another kind.
    fn cost(&self, problem: &Problem, schedule: &Schedule) -> Option<Cost>;

    /// Of Winograd's algorithms, which round more and which `--winograd off` does without: how many times as fast as the
    /// best of the others it must be predicted to be.
    fn least_gain(&self) -> Option<f64> {
        None
    }
}

/// What an algorithm that rounds more gains for that.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Gain {
    /// How many times as fast as the best of the others it is predicted to be.
    pub predicted: f64,
    /// The least that it is taken for.
    pub least: f64,
}

impl Gain {
    /// Whether it is worth the rounding.
    pub fn suffices(&self) -> bool {
        self.predicted >= self.least
    }
}

/// All candidates. Of equal predictions the earlier wins: the simpler form.
pub const CANDIDATES: &[&dyn Candidate] = &[
    &product::Product,
    &depthwise::Depthwise,
    &pointwise::Pointwise,
    &direct::Direct,
    &winograd::Winograd,
    &polyphase::Polyphase,
];

/// What a node computes, in sizes.
#[derive(Debug, Clone, PartialEq)]
pub enum Work {
    /// A convolution.
    Convolution(Convolution),
    /// A matrix product: rows, columns, terms.
    Product([usize; 3]),
}

/// A node to compute on a machine.
#[derive(Debug, Clone, PartialEq)]
pub struct Problem {
    /// What is to be computed.
    pub work: Work,
    /// Element type.
    pub dtype: DType,
    /// Samples, at most.
    pub samples: usize,
    /// The machine.
    pub machine: Machine,
    /// Whether it is a convolution whose weights are there before the step, as in inference.
    pub constant_weights: bool,
}

impl Problem {
    /// The problem that a node is; None where only the general form is possible.
    pub fn of(graph: &Graph, id: NodeId, machine: Machine, options: &Options) -> Option<Problem> {
        let batch_bound = options.batch_bound;
        let (operands, results) = graph.types(id);
        let dtype = operands.first()?.dtype;
        if !matches!(dtype, DType::F32 | DType::F64) {
            return None;
        }
        let (work, samples) = match graph.op(id) {
            Op::MatMul(op) => (
                Work::Product(product_sizes(op, &operands, batch_bound)?),
                batch_bound,
            ),
            op => {
                let conv = Convolution::of(op, &operands, &results)?;
                if conv.samples != Dim::Batch {
                    return None;
                }
                let samples = batch_bound;
                (Work::Convolution(conv), samples)
            }
        };
        let weights = graph.operand(id, 1);
        Some(Problem {
            work,
            dtype,
            samples,
            machine,
            constant_weights: options.mode == Mode::Infer
                && matches!(graph.op(id), Op::Conv(_))
                && weights.is_some_and(|w| !any_depends_on_batch(graph, &[w])),
        })
    }

    /// The convolution, if it is one.
    pub fn convolution(&self) -> Option<&Convolution> {
        match &self.work {
            Work::Convolution(conv) => Some(conv),
            Work::Product(_) => None,
        }
    }

    /// Elements of a vector.
    pub fn lanes(&self) -> usize {
        self.machine.lanes(self.dtype)
    }

    /// All schedules that compute it, in the order of [`CANDIDATES`], and what they cost.
    pub fn candidates(&self, winograd: bool) -> Vec<(Schedule, Cost)> {
        let wanted = CANDIDATES.iter().filter(|c| winograd || c.least_gain().is_none());
        let fits = |schedule: &Schedule| match &self.work {
            Work::Convolution(conv) => schedule.fits_convolution(conv).is_ok(),
            Work::Product(_) => true,
        };
        let accepted = wanted.filter_map(|c| {
            let schedule = c.accepts(self).filter(fits)?;
            Some((schedule, c.cost(self, &schedule)?))
        });
        accepted.collect()
    }

    /// The schedule with the least predicted time, of those that are worth their rounding.
    pub fn best(&self, winograd: bool) -> Option<(Schedule, Cost)> {
        let candidates = self.candidates(winograd).into_iter();
        let worth = candidates.filter(|(schedule, _)| self.gain(schedule).is_none_or(|gain| gain.suffices()));
        worth.min_by(|(_, a), (_, b)| self.seconds(a).total_cmp(&self.seconds(b)))
    }

    /// What a schedule that rounds more gains; None for others, and where there are no others.
    pub fn gain(&self, schedule: &Schedule) -> Option<Gain> {
        let of = |c: &&dyn Candidate| Some((c.cost(self, schedule)?, c.least_gain()?));
        let (cost, least) = CANDIDATES.iter().find_map(of)?;
        let others = self.candidates(false).into_iter();
        let best = others
            .map(|(_, cost)| self.seconds(&cost))
            .min_by(f64::total_cmp)?;
        let predicted = best / self.seconds(&cost);
        Some(Gain { predicted, least })
    }

    fn seconds(&self, cost: &Cost) -> f64 {
        cost.seconds(&self.machine)
    }

    /// What a schedule costs, which need not be a candidate's own; None for the general form.
    pub fn cost(&self, schedule: &Schedule) -> Option<Cost> {
        CANDIDATES.iter().find_map(|c| c.cost(self, schedule))
    }
}
