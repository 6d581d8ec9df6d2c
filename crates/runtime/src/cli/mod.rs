//! The command line of a produced executable.

mod optimization;
pub use optimization::{Optimization, OptimizerName, ScheduleName};

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::error::{Error, Result};

/// A compiled network: trains data-parallel with synchronised BatchNorm, and infers.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Exit codes: 0 done; 1 internal error; 2 wrong use or wrong data; 3 unsupported; 4 this machine lacks \
                  something; 5 a rank died; 130 interrupted"
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// A subcommand.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Train the network
    Train(Box<Train>),
    /// Run the network on data
    Infer(Infer),
    /// Measure speed on random data
    Bench(Bench),
    /// Describe the compiled network
    Info(Info),
}

/// Where to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Device {
    /// The GPUs if the executable has device code and there are any, else the CPU, else the emulator.
    Auto,
    /// The CPU.
    Cpu,
    /// The GPUs.
    Cuda,
    /// The GPU part in the emulator, which is slow and checks memory accesses.
    CudaEmulated,
}

/// What `bench` measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Training steps, updates included.
    Train,
    /// Inference.
    Infer,
}

/// Where to run, and on how many ranks.
#[derive(Debug, Clone, Args)]
pub struct Place {
    /// Where to run
    #[arg(long, value_enum, default_value_t = Device::Auto)]
    pub device: Device,
    /// Number of ranks that split each batch: threads on the CPU, a process for each GPU [default: the visible
    /// GPUs on cuda, else 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub ranks: Option<u32>,
    /// Threads of each rank on the CPU [default: all cores, where the executable's code divides its work, else 1]
    #[arg(long, value_name = "T", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub threads_per_rank: Option<u32>,
    /// Ignore the variables of a launcher (torchrun, srun, mpirun)
    #[arg(long)]
    pub no_launcher_env: bool,
    /// On GPUs, capture steps as CUDA graphs and replay them
    #[arg(long, value_enum, value_name = "on|off", hide_possible_values = true, default_value_t = Switch::On)]
    pub graphs: Switch,
    /// On GPUs, sum gradients on a stream and a communicator of their own, beside the backward pass
    #[arg(long, value_enum, value_name = "on|off", hide_possible_values = true, default_value_t = Switch::On)]
    pub overlap: Switch,
}

/// Whether something is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    /// It is.
    On,
    /// It is not.
    Off,
}

/// How GPU ranks run their steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Steps are captured as graphs and replayed.
    pub graphs: bool,
    /// The sums of gradients have a stream and communicators of their own.
    pub overlap: bool,
}

impl Place {
    /// The number of ranks that `--ranks` asks for.
    pub fn ranks(&self) -> Option<usize> {
        self.ranks.map(|ranks| ranks as usize)
    }

    /// How GPU ranks run their steps.
    pub fn options(&self) -> Options {
        Options {
            graphs: self.graphs == Switch::On,
            overlap: self.overlap == Switch::On,
        }
    }
}

/// Flags of `train`.
#[derive(Debug, Args)]
pub struct Train {
    /// Training data: an npz file with the network's inputs by name, and `target`. Other arrays are ignored;
    /// numbers of any type are converted, without scaling
    #[arg(long, value_name = "NPZ")]
    pub data: PathBuf,
    /// Validation data, of the same form; used at the end of each epoch (the end of the run ends its last one)
    #[arg(long, value_name = "NPZ")]
    pub val: Option<PathBuf>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub place: Place,
    /// Samples of each rank in a step [default: what the executable was compiled for]
    #[arg(long, value_name = "B", conflicts_with = "rank_batches", value_parser = clap::value_parser!(u64).range(1..))]
    pub batch: Option<u64>,
    /// Samples of each rank in a step, one number a rank, 0 allowed. A short last batch is dealt one sample
    /// at a time, to no rank more than its number
    #[arg(long, value_name = "N,N,…", value_delimiter = ',')]
    pub rank_batches: Option<Vec<u64>>,
    /// Passes over the data [default: 1]
    #[arg(long, value_name = "E", conflicts_with = "steps", value_parser = clap::value_parser!(u64).range(1..))]
    pub epochs: Option<u64>,
    /// Steps, over as many passes as that takes
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u64).range(1..))]
    pub steps: Option<u64>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub optimization: Optimization,
    /// Seed of the samples' order
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// Take the samples in the file's order
    #[arg(long)]
    pub no_shuffle: bool,
    /// Drop each epoch's last batch if it is short
    #[arg(long)]
    pub drop_last: bool,
    /// Start from these parameters and running statistics
    #[arg(long, value_name = "SAFETENSORS")]
    pub weights: Option<PathBuf>,
    /// Save parameters and running statistics here at each epoch's end, at the end, and when interrupted.
    /// The optimiser's state is not saved yet: a continued run starts with
    /// empty moments
    #[arg(long, value_name = "SAFETENSORS")]
    pub save: Option<PathBuf>,
    /// Write one JSON object a line: steps have step, epoch, loss, lr and images_per_s (step and epoch count
    /// from 1), and on GPUs replayed; epochs have epoch_end and with --val val_loss and val_accuracy
    #[arg(long, value_name = "JSONL")]
    pub log: Option<PathBuf>,
    /// Write the last step's gradients, before weight decay
    #[arg(long, value_name = "SAFETENSORS")]
    pub dump_gradients: Option<PathBuf>,
    /// Write the last step's training-mode outputs, in the order of the step's samples
    #[arg(long, value_name = "NPZ")]
    pub dump_outputs: Option<PathBuf>,
    /// Write every rank's running statistics (`rankR/NAME`) and the last step's batch statistics
    /// (`rankR/LAYER/mean`, `rankR/LAYER/inv_std`)
    #[arg(long, value_name = "SAFETENSORS")]
    pub dump_statistics: Option<PathBuf>,
}

impl Train {
    /// The number of ranks that `--ranks` or `--rank-batches` asks for.
    pub fn ranks(&self) -> Result<Option<usize>> {
        let given = self.place.ranks();
        let Some(counts) = &self.rank_batches else {
            return Ok(given);
        };
        match given {
            Some(ranks) if ranks != counts.len() => Err(Error::user(format!(
                "--rank-batches gives {} ranks, --ranks gives {ranks}",
                counts.len()
            ))
            .help("leave --ranks away: --rank-batches implies it")),
            _ => Ok(Some(counts.len())),
        }
    }
}

/// Flags of `infer`.
#[derive(Debug, Args)]
pub struct Infer {
    /// Data: an npz file with the network's inputs by name
    #[arg(long, value_name = "NPZ")]
    pub data: PathBuf,
    /// Parameters and running statistics [default: those of the compiled file]
    #[arg(long, value_name = "SAFETENSORS")]
    pub weights: Option<PathBuf>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub place: Place,
    /// Write the outputs here, under the network's names
    #[arg(short, long, value_name = "NPZ")]
    pub output: PathBuf,
}

/// Flags of `bench`.
#[derive(Debug, Args)]
pub struct Bench {
    /// What to measure [default: train if the executable can]
    #[arg(long, value_enum)]
    pub mode: Option<Mode>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub place: Place,
    /// Samples of each rank in a step [default: what the executable was compiled for]
    #[arg(long, value_name = "B", value_parser = clap::value_parser!(u64).range(1..))]
    pub batch: Option<u64>,
    /// Steps to measure
    #[arg(long, value_name = "S", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub steps: u64,
    /// Steps before the measurement
    #[arg(long, value_name = "S", default_value_t = 5, value_parser = clap::value_parser!(u64).range(..=1_000_000))]
    pub warmup: u64,
    /// Measure as many steps again with a clock on every node, and print where the time goes
    #[arg(long)]
    pub per_layer: bool,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// Flags of `info`.
#[derive(Debug, Args)]
pub struct Info {
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
    /// Say what this machine has of what the executable needs to run on GPUs, and what is missing
    #[arg(long)]
    pub device: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::{learning_rate::Shape, optimizer::Optimizer};

    fn optimization(flags: &str) -> Optimization {
        let all = ["m", "train", "--data", "d.npz"]
            .into_iter()
            .chain(flags.split_whitespace());
        match Cli::try_parse_from(all).unwrap().command {
            Command::Train(train) => train.optimization,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn defaults_are_those_of_the_optimiser() {
        let sgd = optimization("");
        let expected = Optimizer::Sgd {
            momentum: 0.9,
            weight_decay: 0.0,
            nesterov: false,
        };
        assert_eq!(sgd.optimizer().unwrap(), expected);
        assert_eq!(sgd.learning_rate(10, 5).unwrap().base, 0.05);
        let adamw = optimization("--optimizer adamw --schedule step --step-size 2");
        let expected = Optimizer::AdamW {
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            weight_decay: 0.01,
        };
        assert_eq!(adamw.optimizer().unwrap(), expected);
        let rate = adamw.learning_rate(20, 5).unwrap();
        assert_eq!(
            (rate.base, rate.shape),
            (
                0.001,
                Shape::Step {
                    steps: 10,
                    gamma: 0.1
                }
            )
        );
        let decayed = optimization("--optimizer adamw --weight-decay 0").optimizer();
        assert!(matches!(
            decayed.unwrap(),
            Optimizer::AdamW {
                weight_decay: 0.0,
                ..
            }
        ));
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn values_that_do_not_exist_are_refused() {
        for flags in [
            ["--optimizer", "adagrad"],
            ["--schedule", "linear"],
            ["--warmup", "0.5"],
            ["--step-size", "0"],
            ["--lr", "-1"],
            ["--beta1", "1"],
            ["--epsilon", "inf"],
        ] {
            let mut all = vec!["m", "train", "--data", "d.npz"];
            all.extend(flags);
            assert!(Cli::try_parse_from(&all).is_err(), "{flags:?}");
        }
        let all = [
            "m",
            "train",
            "--data",
            "d.npz",
            "--batch",
            "2",
            "--rank-batches",
            "1,2",
        ];
        assert!(Cli::try_parse_from(all).is_err());
    }
}
