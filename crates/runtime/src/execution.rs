//! A program with its memory and its ranks, ready to train or infer.

use std::{
    path::Path,
    sync::{
        Arc, Mutex, PoisonError, RwLock, RwLockWriteGuard,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::{
    checkpoint,
    collectives::Collectives,
    crew::Crew,
    data::Dataset,
    error::{Error, Kind, Result},
    initial,
    optimizer::{Optimizer, Update},
    program::Program,
    rank::{Memory, Rank, Step},
    sampler::Share,
};

/// A program with its memory and its ranks.
pub struct Execution {
    program: Arc<Program>,
    memory: Arc<RwLock<Memory>>,
    crew: Crew,
    /// Set by a signal.
    interrupted: Arc<AtomicBool>,
}

/// What an execution is started for.
#[derive(Debug, Clone, Copy)]
pub struct Purpose {
    /// Number of ranks.
    pub ranks: usize,
    /// Largest batch of one rank.
    pub capacity: u64,
    /// The optimiser, if it trains.
    pub train: Option<Optimizer>,
    /// Whether it infers.
    pub infer: bool,
}

impl Execution {
    /// Allocates, starts the ranks, compares their schedules, and sets initial values: those of the program,
    /// or of the safetensors file `weights`.
    pub fn start(
        program: &Arc<Program>,
        purpose: Purpose,
        weights: Option<&Path>,
        interrupted: Arc<AtomicBool>,
    ) -> Result<Self> {
        let model = &program.model;
        let mut memory = Memory::new(model, purpose.train.is_some_and(Optimizer::has_second_moment))?;
        match weights {
            Some(path) => {
                checkpoint::load(path, model, memory.weights.bytes(), memory.statistics.bytes())?;
            }
            None => {
                let element_type = model.element_type;
                initial::fill(
                    &model.parameters,
                    element_type,
                    program.data,
                    memory.weights.bytes(),
                )?;
                initial::fill(
                    &model.statistics,
                    element_type,
                    program.data,
                    memory.statistics.bytes(),
                )?;
            }
        }
        let collectives = Arc::new(Collectives::new(model, purpose.ranks));
        let mut ranks = Vec::with_capacity(purpose.ranks);
        for index in 0..purpose.ranks {
            let both = (purpose.train.is_some(), purpose.infer);
            let mut rank = Rank::new(model, index, Arc::clone(&collectives), purpose.capacity, both)?;
            rank.statistics.bytes().copy_from_slice(memory.statistics.bytes());
            ranks.push(rank);
        }
        let crew = Crew::start(ranks, collectives)?;
        let hash = model.schedule_hash;
        crew.run(move |rank| {
            let context = rank.context();
            context.collectives().agree_on_schedule(context.rank, hash)
        })?;
        let memory = Arc::new(RwLock::new(memory));
        Ok(Execution {
            program: Arc::clone(program),
            memory,
            crew,
            interrupted,
        })
    }

    /// The ranks.
    pub fn crew(&self) -> &Crew {
        &self.crew
    }

    /// The program.
    pub fn program(&self) -> &Arc<Program> {
        &self.program
    }

    /// The shared memory; between jobs only.
    pub fn memory(&self) -> RwLockWriteGuard<'_, Memory> {
        self.memory.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a signal asked for the end.
    pub fn interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }

    /// Runs one training step on `share` of `data` in `order`, without the update; returns the loss.
    pub fn train_step(
        &self,
        data: &Arc<Dataset>,
        order: &Arc<Vec<u64>>,
        share: &Arc<Share>,
        trace: bool,
    ) -> Result<f64> {
        let (function, _) = self.program.training()?;
        let step = Step {
            total: share.total(),
            ranks: self.crew.len(),
            trace,
        };
        let (data, order, share) = (Arc::clone(data), Arc::clone(order), Arc::clone(share));
        let memory = Arc::clone(&self.memory);
        self.crew.run(move |rank| {
            rank.load(&data, &order[share.range(rank.index())]);
            let memory = memory.read().unwrap_or_else(PoisonError::into_inner);
            rank.train(function, &memory, step)
        })?;
        let rank = self.crew.rank(0);
        if self.crew.len() == 1 && rank.context().executed() != 0 {
            return Err(Error::internal("one rank executed a collective"));
        }
        Ok(rank.loss)
    }

    /// Updates the weights with the gradients of the last step.
    pub fn update(&self, update: Update) -> Result<()> {
        let (_, functions) = self.program.training()?;
        let width = self.program.model.element_type.bytes();
        let slices = (self.program.model.arenas.trained / width, width, self.crew.len());
        let memory = Arc::clone(&self.memory);
        self.crew.run(move |rank| {
            let memory = memory.read().unwrap_or_else(PoisonError::into_inner);
            rank.update(functions, &memory, slices, update)
        })
    }

    /// Prepares inference with the current weights and rank 0's running statistics.
    pub fn prepare_inference(&self) -> Result<()> {
        let (prepare, _) = self.program.inference()?;
        self.memory()
            .statistics
            .bytes()
            .copy_from_slice(self.crew.rank(0).statistics.bytes());
        let memory = Arc::clone(&self.memory);
        self.crew.run(move |rank| {
            if rank.index() != 0 {
                return Ok(());
            }
            rank.n = 0;
            rank.infer(prepare, &memory.read().unwrap_or_else(PoisonError::into_inner))
        })
    }

    /// Infers all of `data`, split over the ranks, in batches of up to `batch` samples. Each batch's rank and
    /// samples are shown to `consume`; what it makes of them is returned in the order of the samples.
    pub fn infer<T: Send + 'static>(
        &self,
        data: &Arc<Dataset>,
        batch: u64,
        consume: impl Fn(&mut Rank, &[u64]) -> T + Send + Sync + 'static,
    ) -> Result<Vec<T>> {
        let (_, function) = self.program.inference()?;
        let ranks = self.crew.len();
        let found: Vec<_> = (0..ranks).map(|_| Mutex::new(Vec::new())).collect();
        let found = Arc::new(found);
        let (data, memory) = (Arc::clone(data), Arc::clone(&self.memory));
        let (results, interrupted) = (Arc::clone(&found), Arc::clone(&self.interrupted));
        self.crew.run(move |rank| {
            let memory = memory.read().unwrap_or_else(PoisonError::into_inner);
            let bound = |rank: usize| (u128::from(data.samples()) * rank as u128 / ranks as u128) as u64;
            let own: Vec<u64> = (bound(rank.index())..bound(rank.index() + 1)).collect();
            let mut results = results[rank.index()]
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            for samples in own.chunks(batch as usize) {
                if interrupted.load(Ordering::Relaxed) {
                    return Err(Error::new(Kind::Interrupted, "interrupted"));
                }
                rank.load(&data, samples);
                rank.infer(function, &memory)?;
                results.push(consume(rank, samples));
            }
            Ok(())
        })?;
        let take = |results: &Mutex<Vec<T>>| {
            std::mem::take(&mut *results.lock().unwrap_or_else(PoisonError::into_inner))
        };
        Ok(found.iter().flat_map(take).collect())
    }
}
