//! The machine-readable log: one JSON object a line. Numbers have their shortest form that reads back
//! the same; what is not finite is null.

use std::{
    fs::File,
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};

use serde::Serialize;

use crate::error::{Error, Result};

use super::validate::Figures;

/// One step.
#[derive(Debug, Clone, Serialize)]
pub struct StepLine {
    /// From 1.
    pub step: u64,
    /// From 1.
    pub epoch: u64,
    /// Before the update.
    pub loss: f64,
    /// Learning rate.
    pub lr: f64,
    /// Samples a second, the update included.
    pub images_per_s: f64,
    /// Whether the step was replayed as a graph; absent on the CPU.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replayed: Option<bool>,
}

/// The end of an epoch.
#[derive(Debug, Clone, Serialize)]
pub struct EpochLine {
    /// The epoch that ended, from 1.
    pub epoch_end: u64,
    /// Mean loss over the validation data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub val_loss: Option<f64>,
    /// Share of labels that the largest output hits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub val_accuracy: Option<f64>,
}

impl EpochLine {
    /// A line with the validation's figures, if there are any.
    pub fn new(epoch_end: u64, figures: Option<Figures>) -> Self {
        EpochLine {
            epoch_end,
            val_loss: figures.map(|figures| figures.loss),
            val_accuracy: figures.and_then(|figures| figures.accuracy),
        }
    }
}

/// The log file, or nothing.
pub struct Log {
    file: Option<(PathBuf, BufWriter<File>)>,
}

impl Log {
    /// Creates the file, if there is to be one.
    pub fn create(path: Option<&Path>) -> Result<Self> {
        let create = |path: &Path| {
            let file = File::create(path).map_err(|cause| Error::file("create", path, cause))?;
            Ok((path.to_path_buf(), BufWriter::new(file)))
        };
        Ok(Log {
            file: path.map(create).transpose()?,
        })
    }

    /// Writes a step.
    pub fn step(&mut self, line: &StepLine) -> Result<()> {
        self.write(line)
    }

    /// Writes an epoch's end.
    pub fn epoch(&mut self, line: &EpochLine) -> Result<()> {
        self.write(line)
    }

    /// Each line is flushed, so that the file can be followed.
    fn write(&mut self, line: &impl Serialize) -> Result<()> {
        let Some((path, out)) = &mut self.file else {
            return Ok(());
        };
        serde_json::to_writer(&mut *out, line)
            .map_err(std::io::Error::from)
            .and_then(|()| out.write_all(b"\n"))
            .and_then(|()| out.flush())
            .map_err(|cause| Error::file("write", path, cause))
    }
}
