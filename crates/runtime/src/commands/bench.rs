//! `bench`: the speed of a step on random data.

use std::{
    fs,
    sync::{Arc, atomic::AtomicBool},
    time::Instant,
};

use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};
use serde::Serialize;
use syncbn_abi::{ElementType, Model, Target};

use crate::{
    cli::{self, Mode},
    commands::train,
    error::{Error, Kind, Result},
    execution::{Batch, Purpose},
    files::data::{Column, Dataset},
    initial::store,
    optimizer::{Optimizer, Update},
    place::{self, Place},
    report,
    sampler::{Share, below},
    sizes::{sample_bytes, target_bytes},
};

/// What was measured.
#[derive(Debug, Clone, Serialize)]
struct Figures {
    mode: &'static str,
    device: &'static str,
    /// `f32`, `f64`, `tf32` or `bf16`.
    precision: String,
    ranks: usize,
    /// Samples of each rank.
    batch: u64,
    steps: u64,
    warmup: u64,
    median_ms: f64,
    min_ms: f64,
    max_ms: f64,
    images_per_s: f64,
    peak_rss_bytes: u64,
    /// Collectives that a rank executed in one step.
    collectives_per_step: u64,
    /// Measured steps that were replayed as graphs; absent on the CPU.
    #[serde(skip_serializing_if = "Option::is_none")]
    replayed_steps: Option<u64>,
}

/// Runs `bench`.
pub fn run(place: &Place, flags: &cli::Bench, interrupted: Arc<AtomicBool>) -> Result<()> {
    let model = place.model();
    let mode = flags
        .mode
        .unwrap_or(if model.train { Mode::Train } else { Mode::Infer });
    let batch = flags.batch.unwrap_or(model.batch_bound);
    train::check_bound("--batch", batch, model.batch_bound)?;
    let ranks = place.ranks;
    let training = mode == Mode::Train;
    let optimizer = Optimizer::Sgd {
        momentum: 0.9,
        weight_decay: 0.0,
        nesterov: false,
    };
    let purpose = Purpose {
        ranks,
        capacity: batch,
        train: training.then_some(optimizer),
        infer: !training,
    };
    if training {
        place.check_training()?;
        train::check_groups(model, ranks)?;
    } else {
        place.check_inference()?;
    }
    let share = Arc::new(Share {
        begin: 0,
        counts: vec![batch; ranks],
    });
    if training {
        train::check_step(model, &share, 0)?;
    }
    // The arenas come first: their allocation fails with an error where memory is short.
    let execution = place::start(place, purpose, None, interrupted)?;
    let data = Arc::new(random_data(model, batch * ranks as u64));
    let order = Arc::new((0..share.total()).collect());
    // A step's batch is another one than that before, although its samples are the same.
    let next = || Batch {
        data: Arc::clone(&data),
        order: Arc::clone(&order),
        share: Arc::new((*share).clone()),
    };
    if !training {
        execution.prepare_inference()?;
    }
    let mut times = Vec::new();
    let (mut before, mut replays) = (0, None);
    let mut current = next();
    for step in 0..flags.warmup + flags.steps {
        if execution.interrupted() {
            return Err(Error::new(Kind::Interrupted, "interrupted"));
        }
        if step == flags.warmup {
            before = execution.collectives();
            replays = execution.replays();
        }
        let start = Instant::now();
        if training {
            let following = next();
            execution.train_step(&current, Some(&following), false)?;
            current = following;
            // Small enough that random labels cannot drive the weights away in the measured time.
            let lr = 1e-6;
            execution.update(Update { optimizer, lr, step })?;
        } else {
            execution.infer(&data, batch, None)?;
        }
        execution.end_step(step + 1)?;
        if step >= flags.warmup {
            times.push(start.elapsed().as_secs_f64() * 1e3);
        }
    }
    times.sort_by(f64::total_cmp);
    let middle = times.len() / 2;
    let median_ms = if times.len() % 2 == 1 {
        times[middle]
    } else {
        (times[middle - 1] + times[middle]) / 2.0
    };
    let figures = Figures {
        mode: if training { "train" } else { "infer" },
        device: place.target.device(),
        precision: model.gpu.as_ref().map_or_else(
            || format!("{:?}", model.element_type).to_lowercase(),
            |gpu| gpu.precision.clone(),
        ),
        ranks,
        batch,
        steps: flags.steps,
        warmup: flags.warmup,
        median_ms,
        min_ms: times[0],
        max_ms: times[times.len() - 1],
        images_per_s: share.total() as f64 / median_ms * 1e3,
        peak_rss_bytes: peak_rss(),
        collectives_per_step: (execution.collectives() - before) / flags.steps,
        replayed_steps: execution.replays().zip(replays).map(|(now, then)| now - then),
    };
    execution.finish()?;
    if !execution.leads() {
        return Ok(());
    }
    print(&figures, flags.json)
}

fn print(figures: &Figures, json: bool) -> Result<()> {
    if json {
        let text = serde_json::to_string(figures).map_err(|cause| Error::internal(cause.to_string()))?;
        return report::result(&text);
    }
    let Figures {
        mode,
        device,
        precision,
        ranks,
        batch,
        steps,
        median_ms,
        min_ms,
        max_ms,
        images_per_s,
        ..
    } = figures;
    report::result(&format!(
        "{mode} on {device} in {precision}, {ranks} ranks with {batch} samples each, {steps} steps\n\
         median {median_ms:.3} ms a step (min {min_ms:.3}, max {max_ms:.3})\n\
         {images_per_s:.1} images/s\n\
         {} collectives a step{}\n\
         peak memory {:.1} MiB",
        figures.collectives_per_step,
        figures.replayed_steps.map_or(String::new(), |steps| format!(
            ", {steps} steps replayed as graphs"
        )),
        figures.peak_rss_bytes as f64 / f64::from(1 << 20)
    ))
}

/// Random inputs in [-1, 1) (integers: 0) and random targets.
fn random_data(model: &Model, samples: u64) -> Dataset {
    let mut random = ChaCha8Rng::seed_from_u64(0);
    let mut floats = |bytes: u64, element_type: ElementType| {
        let mut out = vec![0; (bytes * samples) as usize];
        let uniform = || Some((random.next_u64() >> 11) as f64 * 2_f64.powi(-52) - 1.0);
        if element_type != ElementType::I64 {
            store(&mut out, element_type, std::iter::from_fn(uniform));
        }
        Column::new(out, bytes)
    };
    let mut columns: Vec<Column> = model
        .inputs
        .iter()
        .map(|input| floats(sample_bytes(input), input.element_type))
        .collect();
    let bytes = target_bytes(model);
    match &model.target {
        Some(Target::Values { .. }) => columns.push(floats(bytes, model.element_type)),
        Some(Target::Classes { classes, .. }) => {
            let mut random = ChaCha8Rng::seed_from_u64(1);
            let label = |_| below(&mut random, (*classes).max(1)).to_le_bytes();
            let labels = (0..samples * bytes / 8).flat_map(label).collect();
            columns.push(Column::new(labels, bytes));
        }
        None => {}
    }
    Dataset::new(samples, columns)
}

/// The largest resident size of this process so far, in bytes; 0 if the system does not tell.
fn peak_rss() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}
