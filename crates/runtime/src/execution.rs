//! What a training, an inference or a benchmark runs on: the ranks of the CPU, or one GPU rank of several.
//!
//! On the CPU all ranks live in this process. On GPUs each rank is a process, all processes run the same loop,
//! and every method that says so is called by all of them; rank 0 leads: it alone logs and writes files.

use std::{path::Path, sync::Arc};

use syncbn_abi::Model;

use crate::{
    arena,
    error::Result,
    files::{checkpoint, data::Dataset},
    initial,
    optimizer::{Optimizer, Update},
    sampler::Share,
};

/// What runs the ranks of the CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Threads {
    /// Threads of each rank.
    pub per_rank: usize,
    /// Cores that this process has for all of them.
    pub cores: usize,
}

impl Threads {
    /// Whether each thread of `ranks` ranks can have a core of its own.
    pub fn have_own_cores(&self, ranks: usize) -> bool {
        ranks * self.per_rank <= self.cores
    }
}

/// What an execution is started for.
#[derive(Debug, Clone, Copy)]
pub struct Purpose {
    /// Number of ranks.
    pub ranks: usize,
    /// What runs them on the CPU.
    pub threads: Threads,
    /// Largest batch of one rank.
    pub capacity: u64,
    /// The optimiser, if it trains.
    pub train: Option<Optimizer>,
    /// Whether it infers.
    pub infer: bool,
}

/// The samples of one training step.
#[derive(Debug, Clone)]
pub struct Batch {
    /// The data set.
    pub data: Arc<Dataset>,
    /// The epoch's order of its samples.
    pub order: Arc<Vec<u64>>,
    /// Which of them each rank takes.
    pub share: Arc<Share>,
}

impl Batch {
    /// Whether it is the very same batch.
    pub fn is(&self, other: &Batch) -> bool {
        Arc::ptr_eq(&self.data, &other.data)
            && Arc::ptr_eq(&self.order, &other.order)
            && Arc::ptr_eq(&self.share, &other.share)
    }
}

/// A piece of a rank's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Region {
    /// The weights arena.
    Weights,
    /// The gradients arena, after a training step.
    Gradients,
    /// The running statistics.
    Statistics,
    /// A part of the training step's arena, after a step.
    Step {
        /// First byte.
        offset: u64,
        /// Length.
        bytes: u64,
    },
    /// The first bytes of an output, after a step.
    Output {
        /// Which output.
        index: usize,
        /// Length.
        bytes: u64,
    },
}

/// What [`Execution::infer`] makes of a batch: it is shown each output's bytes and the samples' numbers, and
/// its bytes come together on the leading process.
pub type Consume = Arc<dyn Fn(&[&[u8]], &[u64]) -> Vec<u8> + Send + Sync>;

/// A model with its memory and its ranks.
pub trait Execution {
    /// The model.
    fn model(&self) -> &Model;

    /// Number of ranks of the run.
    fn ranks(&self) -> usize;

    /// Whether this process logs, shows progress and writes files.
    fn leads(&self) -> bool;

    /// Whether a signal asked for the end. All processes agree since the last [`Execution::end_step`] or
    /// [`Execution::infer`].
    fn interrupted(&self) -> bool;

    /// Ends training step `step`, counted from 1, so that all processes agree on [`Execution::interrupted`].
    fn end_step(&self, step: u64) -> Result<()>;

    /// Runs one training step on a batch, without the update; returns the loss. `next` is what the next step will get,
    /// if that is known: its samples may be fetched meanwhile. With `trace`, values that are not finite are
    /// looked for.
    fn train_step(&self, batch: &Batch, next: Option<&Batch>, trace: bool) -> Result<f64>;

    /// Updates the weights with the gradients of the last step.
    fn update(&self, update: Update) -> Result<()>;

    /// The lowest node of all ranks whose output was not finite in the last traced step. Called by all.
    fn first_not_finite(&self) -> Result<Option<i64>>;

    /// Prepares inference with the current weights and rank 0's running statistics. Called by all.
    fn prepare_inference(&self) -> Result<()>;

    /// Infers all of `data`, split over the ranks, in batches of up to `batch` samples. The leading process
    /// gets what `consume` made of them, in the order of the samples; without `consume` nothing is made.
    /// Called by all; an interruption is an error of [`crate::error::Kind::Interrupted`] on all.
    fn infer(&self, data: &Arc<Dataset>, batch: u64, consume: Option<Consume>) -> Result<Vec<Vec<u8>>>;

    /// Shows a region of the leading process's first rank, or of this process's rank. `see` must not read others.
    fn read(&self, region: Region, see: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()>;

    /// The region of every rank, in rank order, on the leading process; nothing on others. Called by all.
    fn gather(&self, region: &dyn Fn(usize) -> Region) -> Result<Vec<Vec<u8>>>;

    /// Checks that all ranks hold the same weights, where they have copies of their own. Called by all.
    fn check_weights(&self) -> Result<()>;

    /// The leading process's `outcome`, on all processes. Called by all.
    fn agree(&self, outcome: Result<()>) -> Result<()>;

    /// Waits until all processes are here, as a rank may still use another's part of a collective. Called by
    /// all, last.
    fn finish(&self) -> Result<()>;

    /// From now on notes how long each of the `nodes` nodes of steps and of inference takes on this process's first rank;
    /// steps are slower for it. Called by all.
    fn time_nodes(&self, nodes: usize);

    /// Seconds of each node since the last call of this; before [`Execution::time_nodes`] of none.
    fn node_times(&self) -> Vec<f64>;

    /// Collectives that a rank of this process has executed.
    fn collectives(&self) -> u64;

    /// Steps and batches of inference that this process has replayed as graphs; None where there are none.
    fn replays(&self) -> Option<u64>;
}

/// Sets parameters and running statistics to their initial values: those of the model, whose
/// [`syncbn_abi::Initial::Data`] lie in `data`, or of the safetensors file `weights`.
pub fn initialise(
    model: &Model,
    data: &[u8],
    weights: Option<&Path>,
    arenas: (&mut [u8], &mut [u8]),
) -> Result<()> {
    let (parameters, statistics) = arenas;
    if let Some(path) = weights {
        return checkpoint::load(path, model, parameters, statistics);
    }
    initial::fill(&model.parameters, model.element_type, data, parameters)?;
    initial::fill(&model.statistics, model.element_type, data, statistics)?;
    // The copies in the arenas are what is used from now on.
    arena::give_back(data);
    Ok(())
}

/// The samples `[begin, end)` of `samples` that rank `rank` of `ranks` infers.
pub fn inference_share(samples: u64, rank: usize, ranks: usize) -> std::ops::Range<u64> {
    let bound = |rank: usize| (u128::from(samples) * rank as u128 / ranks as u128) as u64;
    bound(rank)..bound(rank + 1)
}
