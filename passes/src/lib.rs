//! Graph passes of syncbn-compile, the list that orders them and the manager that runs them.
//!
//! [`training_graph`] and [`inference_graph`] turn a network into what is lowered. [`pipelines`] has the one
//! list of passes; `docs/add-a-pass.md` says how to add one.

pub mod analysis;
pub mod opt;
pub mod pipelines;

mod add_loss;
mod assign_layouts;
mod bn_to_syncbn;
mod canonicalize;
mod choose_schedules;
mod combine_all_reduce;
mod differentiate;
mod error;
mod fold_batch_norm;
mod fold_constants;
mod fuse_conv_syncbn_silu;
mod insert_gradient_all_reduce;
mod lower_precision;
mod manager;
mod options;
mod pad_channels;
mod pass;
mod plan_memory;
mod recognize_composites;
mod rewrite;
mod schedule;
mod set_batch_norm_mode;
mod share_moments;

use syncbn_ir::{Graph, Warning};

pub use add_loss::TARGET;
pub use choose_schedules::{Gpu, Machine, Override, schedule_report};
pub use combine_all_reduce::Collectives;
pub use error::{Fault, FaultKind, Faults, PassError};
pub use manager::{PassRun, PrintAfter, Selection, run_passes};
pub use options::{BatchNormMode, DEFAULT_BUCKET_BYTES, Loss, Mode, Options, Order, Storage, Target};
pub use pass::{Changes, Pass, PassContext};
pub use plan_memory::{ALIGNMENT, Layout, Plan, Tensor};
pub use rewrite::{Matcher, Patch, PatchValue, Rule, rewrite};

/// What the passes have to say besides the graph.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Report {
    /// What ran, in order.
    pub passes: Vec<PassRun>,
    /// What the user should know.
    pub warnings: Vec<Warning>,
    /// The memory plan; None when `plan-memory` was skipped. Its node ids are those of the returned graph.
    pub plan: Option<Plan>,
}

/// Runs the `train` pipeline on a copy of a network.
pub fn training_graph(graph: &Graph, options: &Options) -> Result<(Graph, Report), PassError> {
    let options = Options {
        mode: Mode::Train,
        ..options.clone()
    };
    run_pipeline(
        graph,
        &Selection::of(&["train"]),
        PassContext::new(options),
        &mut |_, _| {},
    )
}

/// Runs the `infer` pipeline on a copy of a network. `layout` is that of the training graph of the same
/// network, if there is one: both then agree on the weights and statistics arenas.
pub fn inference_graph(
    graph: &Graph,
    options: &Options,
    layout: Option<&Layout>,
) -> Result<(Graph, Report), PassError> {
    let options = Options {
        mode: Mode::Infer,
        ..options.clone()
    };
    let cx = PassContext {
        layout: layout.cloned(),
        ..PassContext::new(options)
    };
    run_pipeline(graph, &Selection::of(&["infer"]), cx, &mut |_, _| {})
}

/// Runs any selection of passes on a copy of a graph; `show` receives the graphs that the selection asks to see.
pub fn run_pipeline(
    graph: &Graph,
    selection: &Selection,
    mut cx: PassContext,
    show: &mut dyn FnMut(&str, &str),
) -> Result<(Graph, Report), PassError> {
    let mut graph = graph.clone();
    let passes = run_passes(&mut graph, selection, &mut cx, show)?;
    let report = Report {
        passes,
        warnings: cx.warnings,
        plan: cx.plan,
    };
    Ok((graph, report))
}

/// The code of `docs/add-a-pass.md`, run as a test.
#[cfg(doctest)]
#[doc = include_str!("../../docs/add-a-pass.md")]
pub struct AddAPass;
