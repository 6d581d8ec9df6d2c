//! `bench`: the speed of a step on random data.

mod figures;
mod layers;
mod random;

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Instant,
};

use crate::{
    cli::{self, Mode},
    commands::train,
    error::{Error, Kind, Result},
    execution::{Batch, Execution},
    optimizer::{Optimizer, Update},
    place::{self, Place},
    sampler::Share,
};
use figures::{Figures, peak_rss, spread};
use layers::layers;

const OPTIMIZER: Optimizer = Optimizer::Sgd {
    momentum: 0.9,
    weight_decay: 0.0,
    nesterov: false,
};

/// Runs `bench`.
pub fn run(place: &Place, flags: &cli::Bench, interrupted: Arc<AtomicBool>) -> Result<()> {
    let workload = Workload::of(place, flags)?;
    // The arenas come first: their allocation fails with an error where memory is short.
    let train = workload.training.then_some(OPTIMIZER);
    let purpose = place.purpose(workload.batch, train, !workload.training);
    let execution = place::start(place, purpose, None, interrupted)?;
    let figures = workload.measure(place, &*execution, flags)?;
    execution.finish()?;
    if !execution.leads() {
        return Ok(());
    }
    figures.print(flags.json)
}

/// What is measured.
struct Workload {
    training: bool,
    /// Samples of each rank.
    batch: u64,
    ranks: usize,
    share: Arc<Share>,
}

impl Workload {
    /// What the flags ask for, if the executable can do it.
    fn of(place: &Place, flags: &cli::Bench) -> Result<Self> {
        let (model, ranks) = (place.model(), place.ranks);
        let default = if model.train { Mode::Train } else { Mode::Infer };
        let training = flags.mode.unwrap_or(default) == Mode::Train;
        let batch = flags.batch.unwrap_or(model.batch_bound);
        train::check_bound("--batch", batch, model.batch_bound)?;
        let share = Arc::new(Share {
            begin: 0,
            counts: vec![batch; ranks],
        });
        if training {
            place.check_training()?;
            train::check_groups(model, ranks)?;
            train::check_step(model, &share, 0)?;
        } else {
            place.check_inference()?;
        }
        Ok(Workload {
            training,
            batch,
            ranks,
            share,
        })
    }

    /// Runs the steps.
    fn measure(&self, place: &Place, execution: &dyn Execution, flags: &cli::Bench) -> Result<Figures> {
        let model = place.model();
        let data = Arc::new(random::data(model, self.batch * self.ranks as u64));
        let order = Arc::new((0..self.share.total()).collect());
        // A step's batch is another one than that before, although its samples are the same.
        let next = || Batch {
            data: Arc::clone(&data),
            order: Arc::clone(&order),
            share: Arc::new((*self.share).clone()),
        };
        if !self.training {
            execution.prepare_inference()?;
        }
        let mut times = Vec::new();
        let (mut before, mut replays) = (0, None);
        let mut current = next();
        let mut run = |step: u64| -> Result<f64> {
            if execution.interrupted() {
                return Err(Error::new(Kind::Interrupted, "interrupted"));
            }
            let start = Instant::now();
            if self.training {
                let following = next();
                execution.train_step(&current, Some(&following), false)?;
                current = following;
                // Small enough that random labels cannot drive the weights away in the measured time.
                let (optimizer, lr) = (OPTIMIZER, 1e-6);
                execution.update(Update { optimizer, lr, step })?;
            } else {
                execution.infer(&data, self.batch, None)?;
            }
            execution.end_step(step + 1)?;
            Ok(start.elapsed().as_secs_f64() * 1e3)
        };
        let all = flags.warmup + flags.steps;
        for step in 0..all {
            if step == flags.warmup {
                before = execution.collectives();
                replays = execution.replays();
            }
            let time = run(step)?;
            if step >= flags.warmup {
                times.push(time);
            }
        }
        let (collectives, after) = (execution.collectives() - before, execution.replays());
        let mut timed = None;
        if flags.per_layer {
            let nodes = if self.training {
                &model.train_nodes
            } else {
                &model.infer_nodes
            };
            execution.time_nodes(nodes.len());
            let mut seconds = vec![Vec::new(); nodes.len()];
            for step in all..all + flags.steps {
                run(step)?;
                for (of_node, second) in seconds.iter_mut().zip(execution.node_times()) {
                    of_node.push(second);
                }
            }
            let medians: Vec<f64> = seconds.into_iter().map(|of_node| spread(of_node)[0]).collect();
            timed = Some(layers(nodes, &medians, self.batch));
        }
        let [median_ms, min_ms, max_ms] = spread(times);
        let gpu = model.gpu.as_ref();
        Ok(Figures {
            mode: if self.training { "train" } else { "infer" },
            device: place.target.device(),
            precision: gpu.map_or_else(
                || format!("{:?}", model.element_type).to_lowercase(),
                |gpu| gpu.precision.clone(),
            ),
            ranks: self.ranks,
            threads: place.on_cpu().map(|threads| threads.per_rank),
            cores: place.on_cpu().map(|threads| threads.cores),
            batch: self.batch,
            steps: flags.steps,
            warmup: flags.warmup,
            median_ms,
            min_ms,
            max_ms,
            images_per_s: self.share.total() as f64 / median_ms * 1e3,
            peak_rss_bytes: peak_rss(),
            collectives_per_step: collectives / flags.steps,
            replayed_steps: after.zip(replays).map(|(now, then)| now - then),
            layers: timed,
        })
    }
}
