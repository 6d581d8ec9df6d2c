//! What of GPUs this machine has: `info --device`.

use std::path::PathBuf;

use serde::Serialize;

use super::{cuda, nccl::Nccl};
use crate::{error::Error, gpu::part::GpuPart};

/// What was found, and what is missing.
#[derive(Debug, Clone, Serialize)]
pub struct Survey {
    /// The CUDA driver.
    pub driver: Found<Library>,
    /// The GPUs that it sees, in its order, or why it sees none.
    pub gpus: Found<Vec<Found<Gpu>>>,
    /// NCCL, which several ranks need.
    pub nccl: Found<Library>,
}

/// What was found, or why there is nothing.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Found<T> {
    /// It is there and can be used.
    Found(T),
    /// It is not there, or of no use: what the error says.
    Missing(String),
}

/// A library.
#[derive(Debug, Clone, Serialize)]
pub struct Library {
    /// The file, as the loader knows it.
    pub file: PathBuf,
    /// Its version, such as `CUDA 13.0` or `2.30.7`.
    pub version: String,
}

/// A GPU.
#[derive(Debug, Clone, Serialize)]
pub struct Gpu {
    /// The driver's name of it.
    pub name: String,
    /// Compute capability, such as 90 for 9.0.
    pub compute_capability: u32,
    /// Number of multiprocessors.
    pub multiprocessors: u32,
    /// Bytes of memory.
    pub memory: u64,
    /// The code that it would take, such as `cubin for sm_90`.
    pub code: Found<String>,
}

impl<T> Found<T> {
    pub(super) fn of(outcome: Result<T, Error>) -> Self {
        match outcome {
            Ok(found) => Found::Found(found),
            Err(error) => Found::Missing(error.to_string().trim_start_matches("error: ").to_string()),
        }
    }
}

/// Looks for the driver, for GPUs that it sees, and for NCCL. Nothing is loaded onto a GPU.
pub(super) fn survey(part: &GpuPart) -> Survey {
    let (driver, gpus) = match cuda::found(part) {
        Ok((driver, gpus)) => (Found::Found(driver), gpus),
        Err(error) => (
            Found::of(Err(error)),
            Found::Missing("only a driver sees them".into()),
        ),
    };
    let nccl = Nccl::shared().and_then(|nccl| {
        Ok(Library {
            file: nccl.file().to_path_buf(),
            version: nccl.version()?,
        })
    });
    Survey {
        driver,
        gpus,
        nccl: Found::of(nccl),
    }
}

impl Survey {
    /// As lines, the first words of which say what each is about.
    pub fn lines(&self) -> Vec<(&'static str, String)> {
        let library = |found: &Found<Library>| match found {
            Found::Found(library) => format!("{}, {}", library.version, library.file.display()),
            Found::Missing(why) => format!("missing: {why}"),
        };
        let mut lines = vec![("driver", library(&self.driver))];
        match &self.gpus {
            Found::Missing(why) => lines.push(("GPU", format!("missing: {why}"))),
            Found::Found(gpus) => lines.extend(gpus.iter().enumerate().map(|(index, gpu)| {
                let gpu = match gpu {
                    Found::Found(gpu) => gpu.line(),
                    Found::Missing(why) => format!("missing: {why}"),
                };
                ("GPU", format!("{index}: {gpu}"))
            })),
        }
        lines.push(("NCCL", library(&self.nccl)));
        lines
    }
}

impl Gpu {
    fn line(&self) -> String {
        let code = match &self.code {
            Found::Found(code) => code.clone(),
            Found::Missing(why) => format!("no code: {why}"),
        };
        format!(
            "{}, compute capability {}.{}, {} multiprocessors, {:.1} GB, {code}",
            self.name,
            self.compute_capability / 10,
            self.compute_capability % 10,
            self.multiprocessors,
            self.memory as f64 / 1e9
        )
    }
}
