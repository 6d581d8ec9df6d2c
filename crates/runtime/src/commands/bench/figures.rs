//! What `bench` says of its measurement.

use std::fs;

use serde::Serialize;

use super::layers::{Layer, table};
use crate::{
    error::{Error, Result},
    report,
};

/// What was measured.
#[derive(Debug, Clone, Serialize)]
pub struct Figures {
    /// `train` or `infer`.
    pub mode: &'static str,
    /// The value of `--device` that stands for where it ran.
    pub device: &'static str,
    /// `f32`, `f64`, `tf32` or `bf16`.
    pub precision: String,
    /// Number of ranks.
    pub ranks: usize,
    /// Threads of each rank; absent on GPUs.
    #[serde(rename = "threads_per_rank", skip_serializing_if = "Option::is_none")]
    pub threads: Option<usize>,
    /// Cores that there are for all of them; absent on GPUs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cores: Option<usize>,
    /// Samples of each rank.
    pub batch: u64,
    /// Measured steps.
    pub steps: u64,
    /// Steps before these.
    pub warmup: u64,
    /// Median time of a step.
    pub median_ms: f64,
    /// The shortest.
    pub min_ms: f64,
    /// The longest.
    pub max_ms: f64,
    /// Samples of all ranks a second, by the median.
    pub images_per_s: f64,
    /// The largest resident size of this process.
    pub peak_rss_bytes: u64,
    /// Collectives that a rank executed in one step.
    pub collectives_per_step: u64,
    /// Measured steps that were replayed as graphs; absent on the CPU.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replayed_steps: Option<u64>,
    /// Where the time goes, if that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layers: Option<Vec<Layer>>,
}

impl Figures {
    /// Prints them, for people or as JSON.
    pub fn print(&self, json: bool) -> Result<()> {
        if json {
            let text = serde_json::to_string(self).map_err(|cause| Error::internal(cause.to_string()))?;
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
        } = self;
        report::result(&format!(
            "{mode} on {device} in {precision}, {ranks} ranks with {batch} samples each, {steps} steps\n\
             median {median_ms:.3} ms a step (min {min_ms:.3}, max {max_ms:.3})\n\
             {images_per_s:.1} images/s\n\
             {} collectives a step{}\n\
             peak memory {:.1} MiB{}",
            self.collectives_per_step,
            self.replayed_steps.map_or(String::new(), |steps| format!(
                ", {steps} steps replayed as graphs"
            )),
            self.peak_rss_bytes as f64 / f64::from(1 << 20),
            self.layers
                .as_ref()
                .map_or(String::new(), |layers| format!("\n\n{}", table(layers)))
        ))
    }
}

/// The median, the least and the greatest of some times, of which there is at least one.
pub fn spread(mut times: Vec<f64>) -> [f64; 3] {
    times.sort_by(f64::total_cmp);
    let middle = times.len() / 2;
    let median = if times.len() % 2 == 1 {
        times[middle]
    } else {
        (times[middle - 1] + times[middle]) / 2.0
    };
    [median, times[0], times[times.len() - 1]]
}

/// The largest resident size of this process so far, in bytes; 0 if the system does not tell.
pub fn peak_rss() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}
