//! Tensor data in files beside the model.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};

use crate::error::ImportError;
use crate::proto::TensorProto;

/// Where a tensor's bytes lie: checked, not yet read.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ExternalData {
    path: PathBuf,
    offset: u64,
    length: u64,
}

/// Checks the external data entries of a tensor of `bytes` bytes: the file must lie in the model's folder and
/// hold them.
pub(crate) fn locate(
    tensor: &TensorProto,
    bytes: u64,
    folder: Option<&Path>,
) -> Result<ExternalData, ImportError> {
    let fail = |text: String| ImportError::user(format!("initializer \"{}\": {text}", tensor.name()));
    let entry = |key: &str| {
        tensor
            .external_data
            .iter()
            .find(|e| e.key() == key)
            .map(|e| e.value())
    };
    let number = |key: &str| -> Result<Option<u64>, ImportError> {
        let Some(text) = entry(key) else { return Ok(None) };
        let value = text.trim().parse::<u64>();
        let value = value.map_err(|_| fail(format!("{key} \"{text}\" of its external data is no size")))?;
        Ok(Some(value))
    };
    let location = entry("location").filter(|l| !l.is_empty());
    let location = location.ok_or_else(|| fail("its external data has no location".to_string()))?;
    let folder =
        folder.ok_or_else(|| fail(format!("its data lies in \"{location}\", outside of the model")))?;
    let path = resolve(folder, location).map_err(&fail)?;
    let size = std::fs::metadata(&path)
        .map_err(|e| fail(format!("cannot read \"{location}\": {e}")))?
        .len();
    let offset = number("offset")?.unwrap_or(0);
    if offset > size {
        return Err(fail(format!(
            "offset {offset} lies beyond \"{location}\", which has {size} bytes"
        )));
    }
    let length = number("length")?.unwrap_or(bytes);
    if length != bytes {
        return Err(fail(format!(
            "length {length} of its external data differs from its size of {bytes} bytes"
        )));
    }
    if size - offset < bytes {
        return Err(fail(format!(
            "its length of {bytes} bytes from offset {offset} exceeds the size of \"{location}\", {size} bytes"
        )));
    }
    Ok(ExternalData { path, offset, length })
}

/// The file that `location` names, if it lies in `folder`.
fn resolve(folder: &Path, location: &str) -> Result<PathBuf, String> {
    let outside = || format!("location \"{location}\" of its external data is outside of the model's folder");
    // A backslash separates folders for exporters on other systems.
    let relative = Path::new(location);
    let plain = relative
        .components()
        .all(|c| matches!(c, Component::Normal(_) | Component::CurDir));
    if !plain || location.split('\\').any(|part| part == "..") || location.contains('\0') {
        return Err(outside());
    }
    let path = folder.join(relative);
    let missing = |e: std::io::Error| format!("cannot find its external data \"{location}\": {e}");
    let real = path.canonicalize().map_err(missing)?;
    let real_folder = folder.canonicalize().map_err(missing)?;
    if !real.starts_with(&real_folder) {
        return Err(format!("{}: a symbolic link leads there", outside()));
    }
    if !real.is_file() {
        return Err(format!("its external data \"{location}\" is not a file"));
    }
    Ok(real)
}

impl ExternalData {
    /// Reads the bytes.
    pub(crate) fn read(&self) -> Result<Vec<u8>, String> {
        let describe = |e: std::io::Error| format!("cannot read {}: {e}", self.path.display());
        let mut file = File::open(&self.path).map_err(describe)?;
        file.seek(SeekFrom::Start(self.offset)).map_err(describe)?;
        let mut bytes = Vec::new();
        file.take(self.length).read_to_end(&mut bytes).map_err(describe)?;
        if bytes.len() as u64 != self.length {
            return Err(format!(
                "{} became shorter while it was read",
                self.path.display()
            ));
        }
        Ok(bytes)
    }
}
