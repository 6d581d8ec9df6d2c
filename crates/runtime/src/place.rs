//! Where a command runs: which part of the program, on which kind of device, on how many ranks.

use std::{
    path::Path,
    sync::{Arc, atomic::AtomicBool},
};

use syncbn_abi::{Cpu, Model};

use crate::{
    cli::{Device, Options},
    cpu::{execution::CpuExecution, part::CpuPart},
    error::{Error, Result},
    execution::{Execution, Purpose, Threads},
    gpu::{self, execution::GpuExecution, part::GpuPart, process::Seat},
    optimizer::Optimizer,
    program::Program,
    report,
};

/// A part of the program, and what runs it.
#[derive(Debug, Clone)]
pub enum Target {
    /// The CPU.
    Cpu(Arc<CpuPart>),
    /// GPUs, or the emulator.
    Gpu(Arc<GpuPart>, gpu::Kind),
}

impl Target {
    /// The part's description.
    pub fn model(&self) -> &Model {
        match self {
            Target::Cpu(part) => &part.model,
            Target::Gpu(part, _) => &part.model,
        }
    }

    /// The processor that its code is for. What runs on GPUs needs less than the emulated kernels do.
    pub fn cpu(&self) -> &Cpu {
        let model = self.model();
        let emulated = || model.gpu.as_ref()?.emulated_cpu.as_ref();
        match self {
            Target::Gpu(_, gpu::Kind::Emulated) => emulated().unwrap_or(&model.cpu),
            Target::Cpu(_) | Target::Gpu(_, gpu::Kind::Cuda) => &model.cpu,
        }
    }

    /// Number of devices that this process sees, at least 1.
    fn visible(&self) -> Result<usize> {
        match self {
            Target::Cpu(_) => Ok(1),
            Target::Gpu(part, kind) => gpu::visible(part, *kind),
        }
    }

    /// The value of `--device` that stands for it.
    pub fn device(&self) -> &'static str {
        match self {
            Target::Cpu(_) => "cpu",
            Target::Gpu(_, gpu::Kind::Cuda) => "cuda",
            Target::Gpu(_, gpu::Kind::Emulated) => "cuda-emulated",
        }
    }
}

/// Where a command runs.
#[derive(Debug)]
pub struct Place {
    /// The part of the program.
    pub target: Target,
    /// Number of ranks.
    pub ranks: usize,
    /// Which of them this process is; rank 0 stands for all of the CPU's.
    pub seat: Seat,
    /// How GPU ranks run their steps.
    pub options: Options,
    /// What runs the ranks of the CPU.
    pub threads: Threads,
}

impl Place {
    /// The chosen part's description.
    pub fn model(&self) -> &Model {
        self.target.model()
    }

    /// Whether this process logs, shows progress and writes files.
    pub fn leads(&self) -> bool {
        self.seat.rank == 0
    }

    /// What an execution is started for that trains with an optimiser, infers, or both, in batches of up to `capacity`
    /// samples of a rank.
    pub fn purpose(&self, capacity: u64, train: Option<Optimizer>, infer: bool) -> Purpose {
        Purpose {
            ranks: self.ranks,
            threads: self.threads,
            capacity,
            train,
            infer,
        }
    }

    /// What runs the ranks, if they are those of the CPU.
    pub fn on_cpu(&self) -> Option<Threads> {
        matches!(self.target, Target::Cpu(_)).then_some(self.threads)
    }

    /// Who computes, for the first line of output; nothing is said of GPUs.
    pub fn describe(&self) -> Option<String> {
        let Threads { per_rank, cores } = self.on_cpu()?;
        let used = cores.min(self.ranks * per_rank);
        let count = |number: usize, one: &str| match number {
            1 => format!("1 {one}"),
            _ => format!("{number} {one}s"),
        };
        let (ranks, threads) = (count(self.ranks, "rank"), count(per_rank, "thread"));
        Some(format!(
            "{ranks} of {threads} on {used} of {}",
            count(cores, "core")
        ))
    }

    /// What slows the run down.
    pub fn warning(&self) -> Option<String> {
        let (ranks, cores) = (self.ranks, self.on_cpu()?.cores);
        (ranks > cores).then(|| format!("{ranks} ranks take turns on {cores} of this machine's cores"))
    }

    /// Refuses a part that cannot train.
    pub fn check_training(&self) -> Result<()> {
        match &self.target {
            Target::Cpu(part) => part.training().map(|_| ()),
            Target::Gpu(part, _) => part.training().map(|_| ()),
        }
    }

    /// Refuses a part that cannot infer.
    pub fn check_inference(&self) -> Result<()> {
        match &self.target {
            Target::Cpu(part) => part.inference().map(|_| ()),
            Target::Gpu(part, _) => part.inference().map(|_| ()),
        }
    }
}

/// The part that `device` asks for.
///
/// `auto` takes the GPUs if the program has device code and there is a GPU, else the CPU, else the emulator.
pub fn choose(program: &Program, device: Device) -> Result<Target> {
    let gpu = |kind| {
        let part = program.gpu.as_ref()?;
        let gpu = part.model.gpu.as_ref()?;
        let there = match kind {
            gpu::Kind::Cuda => gpu.cuda,
            gpu::Kind::Emulated => gpu.emulated,
        };
        there.then(|| Target::Gpu(Arc::clone(part), kind))
    };
    let cpu = || program.cpu.as_ref().map(|part| Target::Cpu(Arc::clone(part)));
    let (cuda, emulated) = (gpu(gpu::Kind::Cuda), gpu(gpu::Kind::Emulated));
    let lacks = |flag: &str, part: &str, other: &str| {
        let error = Error::environment(format!("--device {flag}: this executable has no {part}"));
        let targets = program.model().map(|model| model.targets.join(", "));
        error
            .note(format!("it was compiled for {}", targets.unwrap_or_default()))
            .help(format!("use --device {other}"))
    };
    let other = if program.cpu.is_some() { "cpu" } else { "auto" };
    match device {
        Device::Cpu => cpu().ok_or_else(|| lacks("cpu", "CPU part", "auto")),
        Device::CudaEmulated => emulated.ok_or_else(|| lacks("cuda-emulated", "emulated kernels", other)),
        Device::Cuda => {
            let target = cuda.ok_or_else(|| lacks("cuda", "GPU part", other))?;
            target.visible().map(|_| target)
        }
        Device::Auto => {
            let Some(target) = cuda else {
                let error = || Error::environment("this executable has nothing that runs on this machine");
                return cpu().or(emulated).ok_or_else(error);
            };
            let Err(cause) = target.visible() else {
                return Ok(target);
            };
            let (substitute, name) = match (cpu(), emulated) {
                (Some(cpu), _) => (cpu, "on the CPU"),
                (None, Some(emulated)) => (emulated, "in the emulator"),
                (None, None) => return Err(cause),
            };
            report::note(&format!("running {name}, as there is no GPU: {}", cause.message));
            Ok(substitute)
        }
    }
}

/// The threads of each of `ranks` ranks that `--threads-per-rank` asks for, or by default: all of the process's `cores`,
/// where the code of the part divides its work.
pub fn threads(target: &Target, requested: Option<usize>, ranks: usize, cores: usize) -> Result<Threads> {
    let on_cpu = matches!(target, Target::Cpu(_));
    if let Some(threads) = requested.filter(|_| !on_cpu) {
        return Err(Error::user(format!(
            "--threads-per-rank {threads}: ranks on {} have no threads",
            target.device()
        ))
        .help("leave --threads-per-rank away, or use --device cpu"));
    }
    let divides = on_cpu && target.model().threads;
    if let Some(threads) = requested.filter(|&threads| threads > 1 && !divides) {
        return Err(Error::unsupported(format!(
            "--threads-per-rank {threads}: the code of this executable runs on one thread a rank"
        ))
        .help("use --ranks instead"));
    }
    let default = if divides { (cores / ranks).max(1) } else { 1 };
    Ok(Threads {
        per_rank: requested.unwrap_or(default),
        cores,
    })
}

/// Allocates, starts the ranks, compares their schedules, and sets initial values: those of the program, or of
/// the safetensors file `weights`.
pub fn start(
    place: &Place,
    purpose: Purpose,
    weights: Option<&Path>,
    interrupted: Arc<AtomicBool>,
) -> Result<Box<dyn Execution>> {
    Ok(match &place.target {
        Target::Cpu(part) => Box::new(CpuExecution::start(part, purpose, weights, interrupted)?),
        Target::Gpu(part, kind) => {
            let seat = &place.seat;
            Box::new(GpuExecution::start(
                part,
                *kind,
                seat,
                purpose,
                place.options,
                weights,
                interrupted,
            )?)
        }
    })
}
