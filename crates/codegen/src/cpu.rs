//! Processors: what `--cpu` means to LLVM.

use inkwell::targets::TargetMachine;
use syncbn_abi::X86_64_V3;

/// The values of `--cpu`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CpuFlag {
    /// The machine that compiles.
    Native,
    /// AVX2 and FMA.
    X86_64V3,
    /// AVX-512.
    X86_64V4,
}

impl CpuFlag {
    /// The flag's text.
    pub fn name(self) -> &'static str {
        match self {
            CpuFlag::Native => "native",
            CpuFlag::X86_64V3 => "x86-64-v3",
            CpuFlag::X86_64V4 => "x86-64-v4",
        }
    }
}

/// A processor to generate code for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cpu {
    /// The flag it comes from.
    pub flag: CpuFlag,
    /// LLVM's name.
    pub name: String,
    /// Features that code may use, sorted, as [`syncbn_abi::Cpu::features`] has them.
    pub features: Vec<String>,
    /// Features of the compiling machine that LLVM would assume by name but that are off.
    pub disabled: Vec<String>,
}

/// What x86-64-v4 has beyond x86-64-v3.
const V4: [&str; 5] = ["avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512vl"];

impl Cpu {
    /// The processor that a flag means.
    pub fn new(flag: CpuFlag) -> Cpu {
        match flag {
            CpuFlag::Native => Cpu::native(),
            CpuFlag::X86_64V3 => Cpu::level(flag, &[]),
            CpuFlag::X86_64V4 => Cpu::level(flag, &V4),
        }
    }

    fn level(flag: CpuFlag, more: &[&str]) -> Cpu {
        let mut features: Vec<String> = X86_64_V3.iter().chain(more).map(|f| f.to_string()).collect();
        features.sort_unstable();
        Cpu {
            flag,
            name: flag.name().to_string(),
            features,
            disabled: Vec::new(),
        }
    }

    fn native() -> Cpu {
        let name = TargetMachine::get_host_cpu_name().to_string();
        let text = TargetMachine::get_host_cpu_features().to_string();
        let pick = |sign: char| {
            let mut list: Vec<String> = text
                .split(',')
                .filter_map(|f| f.strip_prefix(sign))
                .map(str::to_string)
                .collect();
            list.sort_unstable();
            list
        };
        Cpu {
            flag: CpuFlag::Native,
            name,
            features: pick('+'),
            disabled: pick('-'),
        }
    }

    /// The processor of the same flag that host code of GPU programs is for: any x86-64. That code only launches
    /// kernels, and the machine with the GPU is seldom the one that compiles.
    pub fn host(&self) -> Cpu {
        Cpu {
            flag: self.flag,
            name: "x86-64".to_string(),
            features: Vec::new(),
            disabled: Vec::new(),
        }
    }

    /// LLVM's `+a,-b` form.
    pub fn feature_string(&self) -> String {
        let on = self.features.iter().map(|f| format!("+{f}"));
        let off = self.disabled.iter().map(|f| format!("-{f}"));
        on.chain(off).collect::<Vec<_>>().join(",")
    }

    /// Bytes of the vectors that kernels use.
    pub fn vector_bytes(&self) -> usize {
        let has = |f: &str| self.features.iter().any(|g| g == f);
        match (
            has("avx512f") && has("avx512vl") && has("avx512bw") && has("avx512dq"),
            has("avx2"),
        ) {
            (true, _) => 64,
            (false, true) => 32,
            (false, false) => 16,
        }
    }
}
