//! ptxas, NVIDIA's assembler of PTX: where it is, what it makes of kernels, and what it says of them.
//!
//! It is optional: without it an executable carries PTX only, which the GPU's driver assembles at start.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fmt, fs};

use syncbn_ir::Warning;
use syncbn_mlir::KernelSource;

use crate::{Error, Kind};

/// Names the program; empty to do without it.
const VARIABLE: &str = "SYNCBN_PTXAS";
/// Where PyPI's nvidia-cuda-nvcc puts its programs below the package `nvidia`.
const PACKAGES: [&str; 2] = ["cu13/bin", "cuda_nvcc/bin"];
/// Below the folder that holds the compiler's: where scripts/setup has pip install it.
const TOOLS: &str = "../tools/cuda/nvidia";
/// What to do about a ptxas that is not there or does not do.
const HELP: &str =
    "set SYNCBN_PTXAS to a ptxas of CUDA 12 or later, or to nothing to leave the assembly to the driver";

/// The assembler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ptxas {
    path: PathBuf,
    /// Whether the user named it, so that it must do.
    named: bool,
}

/// What ptxas made of all kernels for one GPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assembled {
    /// Compute capability, such as 80.
    pub capability: u32,
    /// The code.
    pub cubin: Vec<u8>,
    /// What each kernel needs, in ptxas's order.
    pub kernels: Vec<Usage>,
}

/// What a kernel needs of a GPU.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Usage {
    /// Its name.
    pub kernel: String,
    /// Registers of a thread.
    pub registers: u64,
    /// Bytes of static shared memory of a block.
    pub shared: u64,
    /// Bytes of stack of a thread.
    pub stack: u64,
    /// Bytes of registers that a thread stores to memory for want of room.
    pub spill_stores: u64,
    /// Bytes that it loads back.
    pub spill_loads: u64,
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {} registers, {} bytes shared memory, {} bytes stack, spills {} bytes stored, {} loaded",
            self.kernel, self.registers, self.shared, self.stack, self.spill_stores, self.spill_loads
        )
    }
}

impl fmt::Display for Ptxas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.display().fmt(f)
    }
}

impl Ptxas {
    /// The program that `SYNCBN_PTXAS` names; else the first of `$CUDA_HOME/bin`, the path, `tools` beside the
    /// compiler's folder, and the packages of the path's python3.
    ///
    /// # Errors
    /// `SYNCBN_PTXAS` names no file.
    pub fn find() -> Result<Option<Ptxas>, Error> {
        if let Some(path) = env::var_os(VARIABLE) {
            let path = PathBuf::from(path);
            return match () {
                () if path.as_os_str().is_empty() => Ok(None),
                () if path.is_file() => Ok(Some(Ptxas { path, named: true })),
                () => Err(Error::environment(
                    format!("{VARIABLE} is {}, which is no file", path.display()),
                    HELP,
                )),
            };
        }
        let mut folders = Vec::new();
        folders.extend(env::var_os("CUDA_HOME").map(|home| PathBuf::from(home).join("bin")));
        folders.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
        let own = env::current_exe().ok();
        let tools = own.and_then(|program| Some(program.parent()?.join(TOOLS)));
        let found = first(&folders).or_else(|| {
            let packages = tools.into_iter().chain(python_packages());
            let folders: Vec<PathBuf> = packages
                .flat_map(|package| PACKAGES.map(|folder| package.join(folder)))
                .collect();
            first(&folders)
        });
        Ok(found.map(|path| Ptxas { path, named: false }))
    }

    /// Assembles kernels for a GPU. `sources` says whose they are.
    ///
    /// # Errors
    /// Names the first kernel that ptxas refuses, and its nodes.
    pub fn assemble(&self, ptx: &str, capability: u32, sources: &[KernelSource]) -> Result<Assembled, Error> {
        let folder = tempfile::Builder::new()
            .prefix("syncbn-ptxas-")
            .tempdir()
            .map_err(|e| Error::environment(format!("no temporary folder: {e}"), "set TMPDIR"))?;
        let (input, output) = (folder.path().join("kernels.ptx"), folder.path().join("cubin"));
        fs::write(&input, ptx).map_err(Error::internal)?;
        let result = Command::new(&self.path)
            .arg("-v")
            .arg(format!("-arch=sm_{capability}"))
            .arg(&input)
            .arg("-o")
            .arg(&output)
            .stdin(Stdio::null())
            .output()
            .map_err(|e| Error::environment(format!("{self} could not be run: {e}"), HELP))?;
        let said = [result.stdout, result.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        if !result.status.success() {
            return Err(self.refused(&said, ptx, capability, sources));
        }
        Ok(Assembled {
            capability,
            cubin: fs::read(&output).map_err(Error::internal)?,
            kernels: usages(&said),
        })
    }

    /// What came of assembling, or the warning that `lacks` is the consequence of an assembler that does not do. One
    /// that lies about may be too old, so only one that the user named must do.
    ///
    /// # Errors
    /// Those of an assembler that the user named, and kernels that it refuses.
    pub fn or_warning<T>(&self, result: Result<T, Error>, lacks: &str) -> Result<Result<T, Warning>, Error> {
        match result {
            Err(error) if error.kind == Kind::Environment && !self.named => {
                let reason = &error.diagnostics[0].message;
                Ok(Err(Warning::new(format!("{lacks}: {reason}")).help(HELP)))
            }
            result => result.map(Ok),
        }
    }

    fn refused(&self, said: &str, ptx: &str, capability: u32, sources: &[KernelSource]) -> Error {
        let lines = || said.lines().filter(|line| line.starts_with("ptxas"));
        let words = |line: &str| {
            line.split_once(';')
                .map_or(line, |(_, what)| what)
                .trim()
                .to_string()
        };
        let located = lines().find_map(|line| {
            let (_, rest) = line.split_once(", line ")?;
            let number: usize = rest.split(';').next()?.trim().parse().ok()?;
            Some((entry(ptx, number)?, words(line)))
        });
        let Some((kernel, reason)) = located else {
            let all: Vec<String> = lines().take(8).map(words).collect();
            let message = format!(
                "{self} could not assemble for sm_{capability}: {}",
                all.join("\n  ")
            );
            return Error::environment(message, HELP);
        };
        let mut error = Error::internal(format!(
            "ptxas refused kernel {kernel} for sm_{capability}: {reason}"
        ));
        let source = sources.iter().find(|source| source.kernel == kernel);
        for diagnostic in &mut error.diagnostics {
            diagnostic.help = Some(format!("this is a fault of the compiler; {HELP}"));
            diagnostic.place = source.map(|source| {
                let names: Vec<String> = source.nodes.iter().map(|node| format!("\"{node}\"")).collect();
                let head = if names.len() == 1 { "node" } else { "nodes" };
                format!("{head} {} ({})", names.join(", "), source.op)
            });
        }
        error
    }
}

fn first(folders: &[PathBuf]) -> Option<PathBuf> {
    let mut candidates = folders.iter().map(|folder| folder.join("ptxas"));
    candidates.find(|path| path.is_file())
}

/// Folders of the package `nvidia` of the path's python3; none without either.
fn python_packages() -> Vec<PathBuf> {
    let script = "import nvidia\nfor path in nvidia.__path__: print(path)";
    let output = Command::new("python3")
        .args(["-c", script])
        .stdin(Stdio::null())
        .output();
    let Ok(output) = output else {
        return Vec::new();
    };
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().map(|line| Path::new(line).to_path_buf()).collect()
}

/// The kernel that holds a line of PTX (from 1).
fn entry(ptx: &str, line: usize) -> Option<&str> {
    let before = ptx.lines().take(line);
    let entries = before.filter_map(|line| line.split_once(".entry "));
    entries.last()?.1.split('(').next().map(str::trim)
}

/// Reads what `ptxas -v` says of each kernel.
fn usages(said: &str) -> Vec<Usage> {
    let mut all: Vec<Usage> = Vec::new();
    for line in said.lines() {
        if let Some((_, rest)) = line.split_once("Compiling entry function '") {
            let kernel = rest.split('\'').next().unwrap_or_default().to_string();
            all.push(Usage {
                kernel,
                ..Usage::default()
            });
        }
        let Some(usage) = all.last_mut() else { continue };
        for (words, value) in [
            (" bytes stack frame", &mut usage.stack),
            (" bytes spill stores", &mut usage.spill_stores),
            (" bytes spill loads", &mut usage.spill_loads),
            (" registers", &mut usage.registers),
            (" bytes smem", &mut usage.shared),
        ] {
            let before = line
                .split_once(words)
                .and_then(|(before, _)| before.rsplit(' ').next());
            if let Some(number) = before.and_then(|number| number.parse().ok()) {
                *value = number;
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ptxas_says_is_read() {
        let said = "ptxas info    : 0 bytes gmem\n\
            ptxas info    : Compiling entry function 'conv_7' for 'sm_90'\n\
            ptxas info    : Function properties for conv_7\n    \
            8 bytes stack frame, 4 bytes spill stores, 12 bytes spill loads\n\
            ptxas info    : Used 32 registers, used 1 barriers, 1024 bytes smem, 408 bytes cmem[0]\n\
            ptxas info    : Compiling entry function 'relu_1' for 'sm_90'\n    \
            0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads\n\
            ptxas info    : Used 14 registers, used 0 barriers, 408 bytes cmem[0]\n";
        let all: Vec<String> = usages(said).iter().map(Usage::to_string).collect();
        assert_eq!(
            all,
            [
                "conv_7: 32 registers, 1024 bytes shared memory, 8 bytes stack, spills 4 bytes stored, 12 loaded",
                "relu_1: 14 registers, 0 bytes shared memory, 0 bytes stack, spills 0 bytes stored, 0 loaded",
            ]
        );
    }

    /// An assembler that says `said` and fails.
    fn failing(folder: &Path, said: &str) -> Ptxas {
        let path = folder.join("ptxas");
        let words = folder.join("words");
        fs::write(&words, said).unwrap();
        // A shell writes the script: a file that this process has open for writing while another test forks cannot be run.
        let script = format!("#!/bin/sh\ncat {} >&2\nexit 255\n", words.display());
        let written = Command::new("sh")
            .args(["-c", "printf %s \"$1\" >\"$2\" && chmod +x \"$2\"", "sh", &script])
            .arg(&path)
            .status()
            .unwrap();
        assert!(written.success());
        Ptxas { path, named: true }
    }

    #[test]
    fn a_refused_kernel_is_named_with_its_nodes() {
        let folder = tempfile::tempdir().unwrap();
        let said =
            "ptxas x.ptx, line 5; error   : Unknown symbol '%r1'\nptxas fatal   : Ptx assembly aborted";
        let sources = [KernelSource {
            kernel: "conv_2".to_string(),
            op: "conv".to_string(),
            nodes: vec!["stem".to_string()],
        }];
        let ptx = ".version 8.0\n.visible .entry conv_1(\n)\n.visible .entry conv_2(\n  bad\n.visible .entry conv_3(\n";
        let error = failing(folder.path(), said)
            .assemble(ptx, 90, &sources)
            .unwrap_err();
        assert_eq!(error.exit_code(), 1);
        let text = error.to_string();
        for words in [
            "node \"stem\" (conv)",
            "kernel conv_2 for sm_90",
            "Unknown symbol '%r1'",
        ] {
            assert!(text.contains(words), "{text}");
        }
    }

    #[test]
    fn an_assembler_that_knows_no_such_gpu_is_the_machines_fault() {
        let folder = tempfile::tempdir().unwrap();
        let said = "ptxas fatal   : Value 'sm_90' is not defined for option 'gpu-name'";
        let error = failing(folder.path(), said).assemble("", 90, &[]).unwrap_err();
        assert_eq!(error.exit_code(), 4);
        assert!(
            error.to_string().contains("'sm_90' is not defined")
                && error.to_string().contains("SYNCBN_PTXAS")
        );
    }
}
