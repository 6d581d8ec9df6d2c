//! What a pass is, and what it is given besides the graph.

use syncbn_ir::{Graph, Warning};

use crate::combine_all_reduce::Collectives;
use crate::error::PassError;
use crate::options::Options;
use crate::plan_memory::{Layout, Plan};

/// How often a pass changed the graph: 0 means that it left the graph as it was.
pub type Changes = usize;

/// A transformation of a graph.
pub trait Pass: Sync {
    /// Name on the command line.
    fn name(&self) -> &'static str;
    /// One line for `--pass-help`.
    fn summary(&self) -> &'static str;
    /// Transforms the graph. Running a pass twice in a row changes nothing the second time.
    fn run(&self, graph: &mut Graph, cx: &mut PassContext) -> Result<Changes, PassError>;
}

/// What passes know besides the graph, and what they leave for whoever runs them.
#[derive(Debug, Clone, Default)]
pub struct PassContext {
    /// What the compilation asks for.
    pub options: Options,
    /// Offsets of parameters and statistics that another graph of the same network already fixed.
    pub layout: Option<Layout>,
    /// Parameters and statistics of the network before the first pass, for inference without such a layout.
    pub network: Option<Layout>,
    /// What the user should know, in order, each once.
    pub warnings: Vec<Warning>,
    /// The collectives as the first of `share-moments` and `combine-all-reduce` found them, once it has run.
    pub uncombined: Option<Collectives>,
    /// The memory plan, once `plan-memory` has run.
    pub plan: Option<Plan>,
}

impl PassContext {
    /// A context with these options.
    pub fn new(options: Options) -> PassContext {
        PassContext {
            options,
            ..PassContext::default()
        }
    }

    /// Largest batch of one rank.
    pub fn batch_bound(&self) -> usize {
        self.options.batch_bound
    }

    /// Notes a warning, unless it was noted before.
    pub fn warn(&mut self, warning: Warning) {
        if !self.warnings.contains(&warning) {
            self.warnings.push(warning);
        }
    }
}
