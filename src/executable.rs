//! The executable: what its parts need, linked and put in place.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use syncbn_abi::Model;
use syncbn_ir::Warning;

use crate::data::{Blob, Bytes, model_blobs, object_file};
use crate::output::write_atomically;
use crate::{Error, link, runtime};

/// One part of a compiled network: what runs on the CPU, or on GPUs.
#[derive(Debug, Clone)]
pub struct CompiledPart {
    /// Its description.
    pub model: Model,
    /// Code, by the name of its object file.
    pub(crate) objects: Vec<(String, Vec<u8>)>,
    /// Data, by symbol.
    pub(crate) blobs: Vec<(&'static str, Vec<u8>)>,
    /// What the user should know of it besides what its description says.
    pub(crate) warnings: Vec<Warning>,
    /// What `--verbose` says of the code.
    pub(crate) notes: Vec<String>,
}

/// A compiled network: everything but the linked file.
#[derive(Debug, Clone, Default)]
pub struct Compiled {
    /// The parts: that for the CPU, that for GPUs.
    pub parts: Vec<CompiledPart>,
    /// What the user should know.
    pub warnings: Vec<Warning>,
    /// Initial values of all parts.
    pub(crate) data: Bytes,
}

impl Compiled {
    /// Adds a part and its warnings.
    pub(crate) fn add(&mut self, part: CompiledPart) {
        for warning in &part.warnings {
            self.warn(warning.clone());
        }
        self.parts.push(part);
    }

    /// Adds a warning, once.
    pub(crate) fn warn(&mut self, warning: Warning) {
        if !self.warnings.contains(&warning) {
            self.warnings.push(warning);
        }
    }

    /// Links the executable and puts it in place, whole or not at all.
    pub fn write_executable(&self, path: &Path) -> Result<(), Error> {
        let scratch = tempfile::Builder::new()
            .prefix("syncbn-")
            .tempdir()
            .map_err(|e| {
                Error::environment(
                    format!("no temporary folder: {e}"),
                    "set TMPDIR to a folder that can be written",
                )
            })?;
        let known = runtime::known_glibc();
        let mut linked = self.link(known.as_deref(), scratch.path())?;
        let needed = link::needed_glibc(&linked);
        // The version stands in the description inside the executable: a second link puts it right.
        if needed != known {
            linked = self.link(needed.as_deref(), scratch.path())?;
            if let Some(version) = &needed {
                runtime::remember_glibc(version);
            }
        }
        let bytes = fs::read(&linked).map_err(Error::internal)?;
        write_atomically(path, true, |file| file.write_all(&bytes)).map_err(|e| cannot_write(path, &e))
    }

    fn link(&self, glibc: Option<&str>, scratch: &Path) -> Result<PathBuf, Error> {
        let mut models: Vec<Model> = self.parts.iter().map(|part| part.model.clone()).collect();
        for model in &mut models {
            model.glibc = glibc.map(str::to_string);
        }
        let description = serde_json::to_vec(&models).map_err(Error::internal)?;
        let mut blobs: Vec<Blob> = model_blobs(&self.data.bytes, &description).into();
        let own = self.parts.iter().flat_map(|part| &part.blobs);
        blobs.extend(own.map(|(symbol, bytes)| Blob {
            symbol,
            length: None,
            bytes,
        }));
        let data = object_file(&blobs)?;
        let mut paths = Vec::new();
        let objects = self.parts.iter().flat_map(|part| &part.objects);
        for (name, bytes) in objects.chain(&[("data.o".to_string(), data)]) {
            let path = scratch.join(name);
            fs::write(&path, bytes).map_err(|e| cannot_write(&path, &e))?;
            paths.push(path);
        }
        let linked = scratch.join("model");
        link::link(&paths, &runtime::archive(scratch)?, &linked)?;
        Ok(linked)
    }
}

/// The error for an output that cannot be written.
pub fn cannot_write(path: &Path, error: &std::io::Error) -> Error {
    let message = format!("cannot write {}: {error}", path.display());
    Error::user(
        message,
        "choose an output in an existing folder that you may write to",
    )
}
