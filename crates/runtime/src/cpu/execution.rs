//! The ranks of the CPU: threads of this process.

use std::{
    path::Path,
    sync::{
        Arc, Mutex, PoisonError, RwLock, RwLockWriteGuard,
        atomic::{AtomicBool, Ordering},
    },
};

use syncbn_abi::Model;

use crate::{
    cpu::{
        collectives::Collectives,
        crew::Crew,
        part::CpuPart,
        rank::{Memory, Rank, Step},
    },
    error::{Error, Kind, Result},
    execution::{Batch, Consume, Execution, Purpose, Region, inference_share, initialise},
    files::data::Dataset,
    optimizer::{Optimizer, Update},
    order,
};

/// A CPU part with its memory and its ranks.
pub struct CpuExecution {
    part: Arc<CpuPart>,
    memory: Arc<RwLock<Memory>>,
    crew: Crew,
    /// Set by a signal.
    interrupted: Arc<AtomicBool>,
}

impl CpuExecution {
    /// Allocates, starts the ranks, compares their schedules, and sets initial values.
    pub fn start(
        part: &Arc<CpuPart>,
        purpose: Purpose,
        weights: Option<&Path>,
        interrupted: Arc<AtomicBool>,
    ) -> Result<Self> {
        let model = &part.model;
        let mut memory = Memory::new(model, purpose.train.is_some_and(Optimizer::has_second_moment))?;
        let arenas = (memory.weights.bytes(), memory.statistics.bytes());
        initialise(model, part.data, weights, arenas)?;
        order::from_rows(model, memory.weights.bytes());
        let spin = purpose.threads.have_own_cores(purpose.ranks);
        let collectives = Arc::new(Collectives::new(model, purpose.ranks, spin));
        let mut ranks = Vec::with_capacity(purpose.ranks);
        for index in 0..purpose.ranks {
            let both = (purpose.train.is_some(), purpose.infer);
            let mut rank = Rank::new(
                model,
                index,
                (purpose.threads.per_rank, spin),
                Arc::clone(&collectives),
                purpose.capacity,
                both,
            )?;
            rank.statistics.bytes().copy_from_slice(memory.statistics.bytes());
            ranks.push(rank);
        }
        let crew = Crew::start(ranks, collectives, spin)?;
        let hash = model.schedule_hash;
        crew.run(move |rank| {
            let context = rank.context();
            context.collectives().agree_on_schedule(context.rank, hash)
        })?;
        Ok(CpuExecution {
            part: Arc::clone(part),
            memory: Arc::new(RwLock::new(memory)),
            crew,
            interrupted,
        })
    }

    /// The shared memory; between jobs only.
    fn memory(&self) -> RwLockWriteGuard<'_, Memory> {
        self.memory.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows a region of rank `rank`.
    fn show(&self, rank: usize, region: Region, see: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let mut rank = self.crew.rank(rank);
        let outside = || Error::internal(format!("{region:?} lies outside its memory"));
        match region {
            Region::Weights => see(&order::rows(&self.part.model, self.memory().weights.bytes())),
            Region::Gradients => see(&order::rows(&self.part.model, rank.gradients.bytes())),
            Region::Statistics => see(rank.statistics.bytes()),
            Region::Step { offset, bytes } => {
                let range = offset as usize..(offset + bytes) as usize;
                see(rank.train_step.bytes().get(range).ok_or_else(outside)?)
            }
            Region::Output { index, bytes } => {
                let output = rank.outputs.get_mut(index).ok_or_else(outside)?;
                see(output.bytes().get(..bytes as usize).ok_or_else(outside)?)
            }
        }
    }
}

impl Execution for CpuExecution {
    fn model(&self) -> &Model {
        &self.part.model
    }

    fn ranks(&self) -> usize {
        self.crew.len()
    }

    fn leads(&self) -> bool {
        true
    }

    fn interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }

    fn end_step(&self, _: u64) -> Result<()> {
        Ok(())
    }

    fn train_step(&self, batch: &Batch, _: Option<&Batch>, trace: bool) -> Result<f64> {
        let (function, _) = self.part.training()?;
        let Batch { data, order, share } = batch.clone();
        let step = Step {
            total: share.total(),
            ranks: self.crew.len(),
            trace,
        };
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

    fn update(&self, update: Update) -> Result<()> {
        let (_, functions) = self.part.training()?;
        let width = self.part.model.element_type.bytes();
        let slices = (self.part.model.arenas.trained / width, width, self.crew.len());
        let memory = Arc::clone(&self.memory);
        self.crew.run(move |rank| {
            let memory = memory.read().unwrap_or_else(PoisonError::into_inner);
            rank.update(functions, &memory, slices, update)
        })
    }

    fn first_not_finite(&self) -> Result<Option<i64>> {
        let ranks = 0..self.crew.len();
        Ok(ranks
            .filter_map(|rank| self.crew.rank(rank).context().trace().take())
            .min())
    }

    fn prepare_inference(&self) -> Result<()> {
        let (prepare, _) = self.part.inference()?;
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

    fn infer(&self, data: &Arc<Dataset>, batch: u64, consume: Option<Consume>) -> Result<Vec<Vec<u8>>> {
        let (_, function) = self.part.inference()?;
        let ranks = self.crew.len();
        let found: Vec<_> = (0..ranks).map(|_| Mutex::new(Vec::new())).collect();
        let found = Arc::new(found);
        let (data, memory) = (Arc::clone(data), Arc::clone(&self.memory));
        let (results, interrupted) = (Arc::clone(&found), Arc::clone(&self.interrupted));
        self.crew.run(move |rank| {
            let memory = memory.read().unwrap_or_else(PoisonError::into_inner);
            let own: Vec<u64> = inference_share(data.samples(), rank.index(), ranks).collect();
            let mut results = results[rank.index()]
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            for samples in own.chunks(batch as usize) {
                if interrupted.load(Ordering::Relaxed) {
                    return Err(Error::new(Kind::Interrupted, "interrupted"));
                }
                rank.load(&data, samples);
                rank.infer(function, &memory)?;
                if let Some(consume) = &consume {
                    let outputs: Vec<&[u8]> =
                        rank.outputs.iter_mut().map(|output| &*output.bytes()).collect();
                    results.push(consume(&outputs, samples));
                }
            }
            Ok(())
        })?;
        let take = |results: &Mutex<Vec<Vec<u8>>>| {
            std::mem::take(&mut *results.lock().unwrap_or_else(PoisonError::into_inner))
        };
        Ok(found.iter().flat_map(take).collect())
    }

    fn read(&self, region: Region, see: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        self.show(0, region, see)
    }

    fn gather(&self, region: &dyn Fn(usize) -> Region) -> Result<Vec<Vec<u8>>> {
        let mut found = Vec::new();
        for rank in 0..self.crew.len() {
            self.show(rank, region(rank), &mut |bytes| {
                found.push(bytes.to_vec());
                Ok(())
            })?;
        }
        Ok(found)
    }

    fn check_weights(&self) -> Result<()> {
        Ok(())
    }

    fn agree(&self, outcome: Result<()>) -> Result<()> {
        outcome
    }

    fn finish(&self) -> Result<()> {
        Ok(())
    }

    fn time_nodes(&self, nodes: usize) {
        self.crew.rank(0).context().trace().time(nodes);
    }

    fn node_times(&self) -> Vec<f64> {
        self.crew.rank(0).context().trace().take_times()
    }

    fn collectives(&self) -> u64 {
        self.crew.rank(0).context().executed()
    }

    fn replays(&self) -> Option<u64> {
        None
    }
}
