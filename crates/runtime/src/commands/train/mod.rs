//! `train`: the loop over steps and epochs.

mod counts;
pub use counts::{check_groups, check_step};
mod diagnose;
mod dump;
mod log;
mod progress;
mod save;
mod validate;

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Instant,
};

use crate::{
    cli,
    error::{Error, Kind, Result},
    execution::{Batch, Execution},
    files::{atomic_file, data::Dataset},
    learning_rate::LearningRate,
    optimizer::{Optimizer, Update},
    place::{self, Place},
    report,
    sampler::{Sampler, Share},
};

use self::{
    log::{EpochLine, Log, StepLine},
    progress::Progress,
};

/// What is known before the first step.
struct Plan {
    sampler: Sampler,
    capacity: u64,
    steps: u64,
    optimizer: Optimizer,
    learning_rate: LearningRate,
}

/// Runs `train`.
pub fn run(place: &Place, flags: &cli::Train, interrupted: Arc<AtomicBool>) -> Result<()> {
    let model = place.model();
    place.check_training()?;
    if flags.val.is_some() {
        place
            .check_inference()
            .map_err(|error| error.note("--val needs inference"))?;
    }
    if place.leads() {
        check_outputs(flags)?;
    }
    let optimizer = flags.optimization.optimizer()?;
    let full = full_counts(model.batch_bound, flags, place.ranks)?;
    counts::check_groups(model, full.len())?;
    let data = Arc::new(Dataset::read(model, &flags.data, true)?);
    let validation = flags
        .val
        .as_ref()
        .map(|path| Dataset::read(model, path, true).map(Arc::new));
    let validation = validation.transpose()?;
    let plan = plan(data.samples(), full, optimizer, flags)?;
    counts::check(model, &plan.sampler, plan.steps)?;
    let purpose = place.purpose(plan.capacity, Some(optimizer), validation.is_some());
    let execution = place::start(place, purpose, flags.weights.as_deref(), interrupted)?;
    let last = train(&*execution, flags, &plan, &data, validation.as_ref())?;
    save::check_statistics(&*execution)?;
    dump::write(&*execution, flags, &last)?;
    execution.finish()
}

/// Trains all steps; returns the last one's share.
fn train(
    execution: &dyn Execution,
    flags: &cli::Train,
    plan: &Plan,
    data: &Arc<Dataset>,
    validation: Option<&Arc<Dataset>>,
) -> Result<Arc<Share>> {
    let leads = execution.leads();
    let mut log = Log::create(flags.log.as_deref().filter(|_| leads))?;
    let mut progress = Progress::start(plan.steps, leads);
    let per_epoch = plan.sampler.steps_per_epoch();
    let mut batches = Batches::new(data, &plan.sampler);
    let mut batch = batches.next();
    for step in 0..plan.steps {
        let (epoch, place) = (step / per_epoch, step % per_epoch);
        let next = (step + 1 < plan.steps).then(|| batches.next());
        let lr = plan.learning_rate.at(step);
        let start = Instant::now();
        let replays = execution.replays();
        let loss = execution.train_step(&batch, next.as_ref(), false)?;
        if loss.is_finite() {
            let optimizer = plan.optimizer;
            execution.update(Update { optimizer, lr, step })?;
        }
        execution.end_step(step + 1)?;
        let images_per_s = batch.share.total() as f64 / start.elapsed().as_secs_f64();
        let line = StepLine {
            step: step + 1,
            epoch: epoch + 1,
            loss,
            lr,
            images_per_s,
            replayed: replays.map(|before| execution.replays() > Some(before)),
        };
        log.step(&line)?;
        progress.step(&line);
        if !loss.is_finite() {
            return Err(diagnose::not_finite(execution, &batch, step + 1, flags));
        }
        let ends = place + 1 == per_epoch || step + 1 == plan.steps;
        // The save comes first, so that a signal during the validation loses nothing.
        if ends || execution.interrupted() {
            save::write(execution, flags.save.as_deref(), step + 1)?;
        }
        if ends && !execution.interrupted() {
            let figures = match validation.map(|data| validate::run(execution, data, plan.capacity)) {
                Some(Err(error)) if error.kind == Kind::Interrupted => None,
                other => Some(other.transpose()?.flatten()),
            };
            if let Some(figures) = figures {
                let line = EpochLine::new(epoch + 1, figures);
                log.epoch(&line)?;
                progress.epoch(&line);
            }
        }
        if execution.interrupted() {
            return Err(interruption(flags, step + 1));
        }
        if let Some(next) = next {
            batch = next;
        }
    }
    progress.finish();
    if let Some(path) = flags.save.as_ref().filter(|_| leads) {
        report::line(&format!("saved \"{}\"", path.display()));
    }
    Ok(batch.share)
}

/// The batches of a run, epoch after epoch.
struct Batches<'a> {
    data: &'a Arc<Dataset>,
    sampler: &'a Sampler,
    order: Arc<Vec<u64>>,
    step: u64,
}

impl<'a> Batches<'a> {
    fn new(data: &'a Arc<Dataset>, sampler: &'a Sampler) -> Self {
        Batches {
            data,
            sampler,
            order: Arc::default(),
            step: 0,
        }
    }

    fn next(&mut self) -> Batch {
        let per_epoch = self.sampler.steps_per_epoch();
        let (epoch, place) = (self.step / per_epoch, self.step % per_epoch);
        if place == 0 {
            self.order = Arc::new(self.sampler.order(epoch));
        }
        self.step += 1;
        Batch {
            data: Arc::clone(self.data),
            order: Arc::clone(&self.order),
            share: Arc::new(self.sampler.share(place)),
        }
    }
}

fn interruption(flags: &cli::Train, step: u64) -> Error {
    let error = Error::new(Kind::Interrupted, format!("interrupted after step {step}"));
    match &flags.save {
        Some(path) => error.note(format!(
            "the weights after this step are in \"{}\"",
            path.display()
        )),
        None => error.note("nothing was saved, as --save was not given"),
    }
}

/// Samples of each of the run's ranks in a full step, from `--batch` and `--rank-batches`.
fn full_counts(bound: u64, flags: &cli::Train, ranks: usize) -> Result<Vec<u64>> {
    let full = match &flags.rank_batches {
        Some(counts) if counts.len() != ranks => {
            return Err(Error::user(format!(
                "--rank-batches gives {} ranks, but the run has {ranks}",
                counts.len()
            ))
            .help("give one number for each rank"));
        }
        Some(counts) => counts.clone(),
        None => vec![flags.batch.unwrap_or(bound); ranks],
    };
    let flag = if flags.rank_batches.is_some() {
        "--rank-batches"
    } else {
        "--batch"
    };
    check_bound(flag, full.iter().copied().max().unwrap_or(0), bound)?;
    Ok(full)
}

/// Refuses a batch above the compiled bound.
pub fn check_bound(flag: &str, batch: u64, bound: u64) -> Result<()> {
    if batch <= bound {
        return Ok(());
    }
    Err(Error::user(format!(
        "{flag}: {batch} samples a rank, but this executable was compiled for at most {bound}"
    ))
    .help(format!(
        "compile the model again with `syncbn-compile --batch {batch}`, or use more --ranks"
    )))
}

fn plan(samples: u64, full: Vec<u64>, optimizer: Optimizer, flags: &cli::Train) -> Result<Plan> {
    let capacity = full.iter().copied().max().unwrap_or(0);
    let seed = (!flags.no_shuffle).then_some(flags.seed);
    let sampler = Sampler::new(samples, full, seed, flags.drop_last)?;
    let epochs = flags.epochs.unwrap_or(1);
    let steps = flags
        .steps
        .unwrap_or_else(|| epochs.saturating_mul(sampler.steps_per_epoch()));
    let learning_rate = flags
        .optimization
        .learning_rate(steps, sampler.steps_per_epoch())?;
    Ok(Plan {
        sampler,
        capacity,
        steps,
        optimizer,
        learning_rate,
    })
}

/// Finds files that could not be written before anything is computed.
fn check_outputs(flags: &cli::Train) -> Result<()> {
    let files = [
        ("--save", &flags.save),
        ("--log", &flags.log),
        ("--dump-gradients", &flags.dump_gradients),
        ("--dump-outputs", &flags.dump_outputs),
        ("--dump-statistics", &flags.dump_statistics),
    ];
    let mut taken = vec![("--data", flags.data.as_path())];
    taken.extend(flags.val.as_deref().map(|path| ("--val", path)));
    for (flag, path) in files {
        let Some(path) = path else { continue };
        atomic_file::check(flag, path)?;
        if let Some((other, _)) = taken.iter().find(|(_, other)| atomic_file::same(path, other)) {
            return Err(Error::user(format!(
                "{flag} and {other} name the same file, \"{}\"",
                path.display()
            ))
            .help("give each its own file"));
        }
        taken.push((flag, path));
    }
    Ok(())
}
