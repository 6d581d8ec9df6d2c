//! A data set in memory: every input and the target, as the model takes them.

use std::path::{Path, PathBuf};

use syncbn_abi::{ElementType, Model, Target};

use super::{
    convert::convert,
    npz::{Archive, shape_text},
};
use crate::{
    error::{Error, Result},
    sizes::{sample_bytes, target_bytes},
};

/// One input or target of all samples.
#[derive(Debug, Clone)]
pub struct Column {
    bytes: Vec<u8>,
    sample_bytes: usize,
}

impl Column {
    /// A column of `bytes`, `sample_bytes` for each sample.
    pub fn new(bytes: Vec<u8>, sample_bytes: u64) -> Self {
        Column {
            bytes,
            sample_bytes: sample_bytes as usize,
        }
    }

    /// Bytes of one sample.
    pub fn sample_bytes(&self) -> usize {
        self.sample_bytes
    }

    /// Copies `samples` one after the other to the start of `out`.
    pub fn gather(&self, samples: &[u64], out: &mut [u8]) {
        let size = self.sample_bytes;
        for (place, &sample) in samples.iter().enumerate() {
            let source = sample as usize * size;
            out[place * size..(place + 1) * size].copy_from_slice(&self.bytes[source..source + size]);
        }
    }

    /// The bytes of one sample.
    pub fn sample(&self, sample: u64) -> &[u8] {
        let start = sample as usize * self.sample_bytes;
        &self.bytes[start..start + self.sample_bytes]
    }
}

/// A data set.
#[derive(Debug, Clone)]
pub struct Dataset {
    samples: u64,
    /// The inputs in the model's order, then the target if it was asked for.
    columns: Vec<Column>,
}

/// What an array must be.
struct Wanted<'a> {
    name: &'a str,
    element_type: ElementType,
    shape: &'a [u64],
    sample_bytes: u64,
    /// Number of classes, for labels.
    classes: Option<u64>,
}

impl Dataset {
    /// A data set from columns of `samples` samples.
    pub fn new(samples: u64, columns: Vec<Column>) -> Self {
        Dataset { samples, columns }
    }

    /// Number of samples, at least 1.
    pub fn samples(&self) -> u64 {
        self.samples
    }

    /// The inputs in the model's order, then the target if there is one.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// The target's column.
    pub fn target(&self, model: &Model) -> Option<&Column> {
        self.columns.get(model.inputs.len())
    }

    /// Reads the arrays that `model` takes from the npz file `path`; `with_target` reads `target` too.
    pub fn read(model: &Model, path: &Path, with_target: bool) -> Result<Self> {
        let mut archive = Archive::open(path)?;
        let mut wanted: Vec<Wanted> = model
            .inputs
            .iter()
            .map(|input| Wanted {
                name: &input.name,
                element_type: input.element_type,
                shape: &input.shape,
                sample_bytes: sample_bytes(input),
                classes: None,
            })
            .collect();
        if let Some(target) = model.target.as_ref().filter(|_| with_target) {
            let (element_type, shape, classes) = match target {
                Target::Classes { classes, shape } => (ElementType::I64, shape, Some(*classes)),
                Target::Values { shape } => (model.element_type, shape, None),
            };
            let sample_bytes = target_bytes(model);
            wanted.push(Wanted {
                name: "target",
                element_type,
                shape,
                sample_bytes,
                classes,
            });
        }
        // Headers come first, so that a wrong file fails before its data are read.
        let samples = check_headers(&mut archive, &wanted)?;
        let columns = wanted
            .iter()
            .map(|wanted| read_column(&mut archive, wanted))
            .collect::<Result<_>>()?;
        Ok(Dataset { samples, columns })
    }
}

/// Checks shapes and element types; returns the number of samples that all arrays have.
fn check_headers(archive: &mut Archive, wanted: &[Wanted]) -> Result<u64> {
    let mut counts: Vec<(&str, u64)> = Vec::new();
    for array in wanted {
        let header = archive.header(array.name)?;
        let about = format!("array \"{}\" of \"{}\"", array.name, archive.path().display());
        if header.shape.get(1..) != Some(array.shape) {
            let sizes: String = array.shape.iter().map(|size| format!(", {size}")).collect();
            let comma = if array.shape.is_empty() { "," } else { "" };
            return Err(Error::user(format!(
                "{about} has the wrong shape: expected (samples{sizes}{comma}), found {}",
                shape_text(&header.shape)
            ))
            .help("`info` lists what the executable takes"));
        }
        if array.classes.is_some() && !header.element.is_integer() {
            return Err(Error::user(format!(
                "{about} holds {} values, but class labels are integers",
                header.element.name()
            ))
            .help("store the labels with .astype(numpy.int64), one class index each"));
        }
        counts.push((array.name, header.shape[0]));
    }
    let samples = counts.first().map_or(0, |(_, count)| *count);
    let path = PathBuf::from(archive.path());
    if counts.iter().any(|(_, count)| *count != samples) {
        let list: Vec<_> = counts
            .iter()
            .map(|(name, count)| format!("\"{name}\" has {count}"))
            .collect();
        return Err(Error::user(format!(
            "the arrays of \"{}\" differ in their number of samples: {}",
            path.display(),
            list.join(", ")
        )));
    }
    if samples == 0 {
        return Err(Error::user(format!("\"{}\" holds no samples", path.display())));
    }
    Ok(samples)
}

fn read_column(archive: &mut Archive, wanted: &Wanted) -> Result<Column> {
    let array = archive.read(wanted.name)?;
    let about = |text: &str| {
        let path = archive.path().display();
        Error::user(format!(
            "cannot use array \"{}\" of \"{path}\": {text}",
            wanted.name
        ))
    };
    let bytes = convert(&array.header, array.bytes, wanted.element_type).map_err(|text| about(&text))?;
    if let Some(classes) = wanted.classes {
        check_labels(&bytes, classes, wanted.sample_bytes).map_err(|error| {
            let path = archive.path().display();
            Error {
                message: format!("{} in array \"target\" of \"{path}\"", error.message),
                ..error
            }
        })?;
    }
    Ok(Column::new(bytes, wanted.sample_bytes))
}

/// Checks that every label is a class index.
fn check_labels(bytes: &[u8], classes: u64, sample_bytes: u64) -> Result<()> {
    for (index, label) in bytes.as_chunks::<8>().0.iter().enumerate() {
        let label = i64::from_le_bytes(*label);
        if u64::try_from(label).is_ok_and(|label| label < classes) {
            continue;
        }
        let sample = index as u64 * 8 / sample_bytes.max(8);
        let error = Error::user(format!("label {label} at index {index} (sample {sample})"));
        return Err(match label {
            -100 => error
                .note("-100 asks to ignore a label; ignoring labels is not supported")
                .help("remove those samples from the data"),
            _ => error.note(format!(
                "the model has {classes} classes: labels are 0 to {}",
                classes - 1
            )),
        });
    }
    Ok(())
}
