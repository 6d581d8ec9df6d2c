//! One rank: its private memory, and the calls of generated code on it.

use std::{ptr, sync::Arc};

use syncbn_abi::{ALIGNMENT, Model, StepArguments};

use crate::{
    arena::Arena,
    cpu::{
        all_reduce::slice_of,
        collectives::{Collectives, Context},
        part::{StepFunction, Updates},
        threads::{Call, Threads},
    },
    error::{Error, Result},
    files::data::Dataset,
    optimizer::{Arguments, Slice, Update},
    sizes::{sample_bytes, target_bytes},
};

/// What all ranks of a process share. Steps only read the weights; updates write disjoint slices.
#[derive(Debug)]
pub struct Memory {
    /// Parameters.
    pub weights: Arena,
    /// SGD's momentum buffer, AdamW's first moment.
    pub velocity: Arena,
    /// AdamW's second moment; empty under SGD.
    pub second_moment: Arena,
    /// What inference derives from weights and statistics.
    pub prepared: Arena,
    /// The running statistics that inference uses.
    pub statistics: Arena,
}

impl Memory {
    /// Zeroed memory for `model`, with or without the second moment.
    pub fn new(model: &Model, second_moment: bool) -> Result<Self> {
        let arenas = &model.arenas;
        let trained = |wanted: bool| if wanted { arenas.trained } else { 0 };
        Ok(Memory {
            weights: Arena::zeroed(arenas.weights, "the weights")?,
            velocity: Arena::zeroed(trained(model.train), "the momentum buffer")?,
            second_moment: Arena::zeroed(trained(second_moment), "the second moment")?,
            prepared: Arena::zeroed(arenas.prepared, "prepared weights")?,
            statistics: Arena::zeroed(arenas.statistics, "running statistics")?,
        })
    }
}

/// How a training step runs.
#[derive(Debug, Clone, Copy)]
pub struct Step {
    /// Samples of all ranks.
    pub total: u64,
    /// Number of ranks.
    pub ranks: usize,
    /// Whether to look for values that are not finite.
    pub trace: bool,
}

/// A rank's private state.
#[derive(Debug)]
pub struct Rank {
    context: Arc<Context>,
    threads: Threads,
    /// Running statistics.
    pub statistics: Arena,
    /// Gradients; empty in inference.
    pub gradients: Arena,
    /// The training step's arena; empty in inference.
    pub train_step: Arena,
    infer_step: Arena,
    /// What each thread but the first needs while kernels run.
    scratch: Arena,
    scratch_bytes: usize,
    /// What all of them share while kernels run.
    partials: Arena,
    /// One buffer for each input, and one for the target.
    inputs: Vec<Arena>,
    /// One buffer for each output.
    pub outputs: Vec<Arena>,
    /// Samples in the buffers.
    pub n: u64,
    /// The loss of the last step.
    pub loss: f64,
}

impl Rank {
    /// Memory for `rank` with batches of up to `capacity` samples, for training, inference or both, and its threads but
    /// for the one that calls it; `spin` as in [`super::barrier::Barrier::new`].
    pub fn new(
        model: &Model,
        rank: usize,
        (threads, spin): (usize, bool),
        collectives: Arc<Collectives>,
        capacity: u64,
        (train, infer): (bool, bool),
    ) -> Result<Self> {
        let context = Arc::new(Context::new(
            rank,
            (threads, spin),
            collectives,
            model.element_type,
        ));
        let arenas = &model.arenas;
        let batch = |bytes: u64| Arena::zeroed(bytes.saturating_mul(capacity), "a batch");
        let mut inputs: Vec<Arena> = model
            .inputs
            .iter()
            .map(|input| batch(sample_bytes(input)))
            .collect::<Result<_>>()?;
        inputs.push(batch(target_bytes(model))?);
        let when = |wanted: bool, bytes: u64| if wanted { bytes } else { 0 };
        let scratch = arenas.scratch.next_multiple_of(ALIGNMENT);
        Ok(Rank {
            threads: Threads::start(&context, spin)?,
            context,
            statistics: Arena::zeroed(arenas.statistics, "running statistics")?,
            gradients: Arena::zeroed(when(train, arenas.trained), "gradients")?,
            train_step: Arena::zeroed(when(train, arenas.train_step), "the training step")?,
            infer_step: Arena::zeroed(when(infer, arenas.infer_step), "inference")?,
            scratch: Arena::zeroed(
                scratch.saturating_mul(threads as u64 - 1),
                "the threads of a rank",
            )?,
            scratch_bytes: scratch as usize,
            partials: Arena::zeroed(arenas.partials, "parts of sums")?,
            inputs,
            outputs: model
                .outputs
                .iter()
                .map(|output| batch(sample_bytes(output)))
                .collect::<Result<_>>()?,
            n: 0,
            loss: 0.0,
        })
    }

    /// This rank's number.
    pub fn index(&self) -> usize {
        self.context.rank
    }

    /// What the rank shares with generated code.
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// Copies `samples` of `data` into the rank's buffers. The target is copied if the data have one.
    pub fn load(&mut self, data: &Dataset, samples: &[u64]) {
        for (buffer, column) in self.inputs.iter_mut().zip(data.columns()) {
            column.gather(samples, buffer.bytes());
        }
        self.n = samples.len() as u64;
    }

    /// Runs one training step on the loaded samples: `self.loss`, gradients, statistics and outputs change.
    pub fn train(&mut self, function: StepFunction, memory: &Memory, step: Step) -> Result<()> {
        let mut loss = f64::NAN;
        let (inputs, outputs) = self.pointers();
        let arguments = StepArguments {
            context: Arc::as_ptr(&self.context).cast_mut().cast(),
            weights: memory.weights.as_ptr(),
            gradients: self.gradients.as_ptr(),
            statistics: self.statistics.as_ptr(),
            prepared: ptr::null_mut(),
            step: self.train_step.as_ptr(),
            inputs: inputs.as_ptr(),
            outputs: outputs.as_ptr(),
            loss: &raw mut loss,
            n: self.n as i64,
            total: step.total as i64,
            ranks: step.ranks as i64,
            trace: i64::from(step.trace || self.context.trace().is_timing()),
            thread: 0,
            threads: 1,
            scratch: self.scratch.as_ptr(),
            partials: self.partials.as_ptr(),
        };
        self.context.trace().start_clock();
        // SAFETY: arenas and buffers have the sizes of the description; `&mut self` keeps the private ones
        // to this call, and a training step only reads the weights.
        let status = unsafe {
            self.threads
                .run(Call::Step(function, arguments, self.scratch_bytes))
        };
        self.loss = loss;
        self.check(status, "the training step")
    }

    /// Runs a function of inference on the loaded samples, with the shared statistics. Prepare functions
    /// write the prepared arena and must run on one rank alone.
    pub fn infer(&mut self, function: StepFunction, memory: &Memory) -> Result<()> {
        let (inputs, outputs) = self.pointers();
        let arguments = StepArguments {
            context: Arc::as_ptr(&self.context).cast_mut().cast(),
            weights: memory.weights.as_ptr(),
            gradients: ptr::null_mut(),
            statistics: memory.statistics.as_ptr(),
            prepared: memory.prepared.as_ptr(),
            step: self.infer_step.as_ptr(),
            inputs: inputs.as_ptr(),
            outputs: outputs.as_ptr(),
            loss: ptr::null_mut(),
            n: self.n as i64,
            total: self.n as i64,
            ranks: 1,
            trace: i64::from(self.context.trace().is_timing()),
            thread: 0,
            threads: 1,
            scratch: self.scratch.as_ptr(),
            partials: self.partials.as_ptr(),
        };
        self.context.trace().start_clock();
        let before = self.context.executed();
        // SAFETY: as in `train`; inference only reads what is shared, but for the prepare function, which
        // runs on one rank alone.
        let status = unsafe {
            self.threads
                .run(Call::Step(function, arguments, self.scratch_bytes))
        };
        self.check(status, "inference")?;
        if self.context.executed() != before {
            return Err(Error::internal("inference executed a collective"));
        }
        Ok(())
    }

    /// Updates this rank's slice of the trained weights with its gradients, which are those of all ranks.
    pub fn update(
        &mut self,
        functions: Updates,
        memory: &Memory,
        (elements, element_bytes, ranks): (u64, u64, usize),
        update: Update,
    ) -> Result<()> {
        let (begin, end) = slice_of(elements as usize, element_bytes as usize, self.index(), ranks);
        let arguments = update.arguments(Slice {
            weights: memory.weights.as_ptr(),
            gradients: self.gradients.as_ptr(),
            velocity: memory.velocity.as_ptr(),
            second_moment: memory.second_moment.as_ptr(),
            begin: begin as i64,
            end: end as i64,
        });
        if matches!(arguments, Arguments::AdamW(_)) && memory.second_moment.is_empty() && end > begin {
            return Err(Error::internal("AdamW has no memory for the second moment"));
        }
        let bytes = element_bytes as usize;
        let call = match arguments {
            Arguments::Sgd(arguments) => Call::Sgd(functions.sgd, arguments, bytes),
            Arguments::AdamW(arguments) => Call::AdamW(functions.adamw, arguments, bytes),
        };
        // SAFETY: the slices of the ranks are disjoint, lie within the trained part, and nothing else uses
        // weights and moments during an update.
        let status = unsafe { self.threads.run(call) };
        self.check(status, "the update")
    }

    fn pointers(&self) -> (Vec<*const u8>, Vec<*mut u8>) {
        let inputs = self
            .inputs
            .iter()
            .map(|buffer| buffer.as_ptr().cast_const())
            .collect();
        (inputs, self.outputs.iter().map(Arena::as_ptr).collect())
    }

    fn check(&self, status: i32, what: &str) -> Result<()> {
        match (status, self.context.take_failure()) {
            (0, None) => Ok(()),
            (_, Some(error)) => Err(error),
            (status, None) => Err(Error::internal(format!(
                "{what} of rank {} ended with status {status}",
                self.index()
            ))),
        }
    }
}
