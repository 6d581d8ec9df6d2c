//! Parameters and running statistics as safetensors files.

use std::{fs, io::Write, path::Path};

use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use syncbn_abi::{ElementType, Model, Parameter};

use crate::{
    error::{Error, Result},
    files::{
        atomic_file,
        data::half::{bf16_to_f64, f16_to_f64},
    },
    initial::{region, store},
};

/// A tensor to write: name, element type, shape, little-endian elements.
pub type Entry<'a> = (String, ElementType, Vec<u64>, &'a [u8]);

/// Writes `entries` to `path`, atomically.
pub fn write(path: &Path, entries: &[Entry]) -> Result<()> {
    let views = entries
        .iter()
        .map(|(name, element_type, shape, bytes)| {
            let dtype = match element_type {
                ElementType::F32 => Dtype::F32,
                ElementType::F64 => Dtype::F64,
                ElementType::I64 => Dtype::I64,
            };
            let shape = shape.iter().map(|size| *size as usize).collect();
            let view = TensorView::new(dtype, shape, bytes)
                .map_err(|cause| Error::internal(format!("tensor \"{name}\": {cause}")))?;
            Ok((name.as_str(), view))
        })
        .collect::<Result<Vec<_>>>()?;
    let text = safetensors::serialize(views, None)
        .map_err(|cause| Error::internal(format!("cannot lay out \"{}\": {cause}", path.display())))?;
    atomic_file::write(path, |out| out.write_all(&text))
}

/// The entries of `tensors` in `arena`.
pub fn entries<'a>(
    tensors: &'a [Parameter],
    element_type: ElementType,
    arena: &'a [u8],
) -> Result<Vec<Entry<'a>>> {
    tensors
        .iter()
        .map(|tensor| {
            let bytes = region(tensor, element_type, arena.len()).map(|range| &arena[range]);
            let bytes = bytes.ok_or_else(|| {
                Error::internal(format!("tensor \"{}\" lies outside its memory", tensor.name))
            })?;
            Ok((tensor.name.clone(), element_type, tensor.shape.clone(), bytes))
        })
        .collect()
}

/// Reads every parameter and running statistic of `model` from `path` into the arenas. Missing, extra and
/// misshapen tensors are one error that lists all of them, and leaves the arenas alone.
pub fn load(path: &Path, model: &Model, weights: &mut [u8], statistics: &mut [u8]) -> Result<()> {
    let bytes = fs::read(path).map_err(|cause| Error::file("read", path, cause))?;
    let file = SafeTensors::deserialize(&bytes).map_err(|cause| {
        Error::file(
            "read",
            path,
            format!("it is not a complete safetensors file ({cause})"),
        )
    })?;
    let wanted = || model.parameters.iter().chain(&model.statistics);
    let mut problems = Vec::new();
    for tensor in wanted() {
        match file.tensor(&tensor.name) {
            Err(_) => problems.push(format!("missing: \"{}\" {:?}", tensor.name, tensor.shape)),
            Ok(view) => {
                if !view
                    .shape()
                    .iter()
                    .map(|size| *size as u64)
                    .eq(tensor.shape.iter().copied())
                {
                    let (name, shape) = (&tensor.name, &tensor.shape);
                    problems.push(format!(
                        "wrong shape: \"{name}\" expected {shape:?}, found {:?}",
                        view.shape()
                    ));
                } else if decoder(view.dtype()).is_none() {
                    problems.push(format!(
                        "not floating point: \"{}\" is {:?}",
                        tensor.name,
                        view.dtype()
                    ));
                }
            }
        }
    }
    let mut names = file.names();
    names.sort_unstable();
    for name in names {
        if !wanted().any(|tensor| tensor.name == name) {
            problems.push(format!("not in the model: \"{name}\""));
        }
    }
    if !problems.is_empty() {
        let mut error = Error::user(format!(
            "\"{}\" does not hold this model's tensors",
            path.display()
        ));
        error.notes = problems
            .into_iter()
            .map(|problem| format!("note: {problem}"))
            .collect();
        return Err(error.help("`info` lists the tensors that the model has"));
    }
    for (tensors, arena) in [(&model.parameters, weights), (&model.statistics, statistics)] {
        for tensor in tensors {
            let outside = || Error::internal(format!("tensor \"{}\" lies outside its memory", tensor.name));
            let target = region(tensor, model.element_type, arena.len()).ok_or_else(outside)?;
            let view = file.tensor(&tensor.name).map_err(|_| outside())?;
            let (width, decode) = decoder(view.dtype()).ok_or_else(outside)?;
            store(
                &mut arena[target],
                model.element_type,
                view.data().chunks_exact(width).map(decode),
            );
        }
    }
    Ok(())
}

/// Reads one little-endian element.
type Decode = fn(&[u8]) -> f64;

/// Width in bytes and decoder of a floating-point element type.
fn decoder(dtype: Dtype) -> Option<(usize, Decode)> {
    match dtype {
        Dtype::F16 => Some((2, |b| f16_to_f64(u16::from_le_bytes([b[0], b[1]])))),
        Dtype::BF16 => Some((2, |b| bf16_to_f64(u16::from_le_bytes([b[0], b[1]])))),
        Dtype::F32 => Some((4, |b| f64::from(f32::from_le_bytes([b[0], b[1], b[2], b[3]])))),
        Dtype::F64 => Some((8, |b| {
            f64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]])
        })),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_float_types_are_decoded() {
        let decode = |dtype, bytes: &[u8]| {
            let (width, decode) = decoder(dtype).unwrap();
            assert_eq!(width, bytes.len());
            decode(bytes)
        };
        assert_eq!(decode(Dtype::F16, &0xc000_u16.to_le_bytes()), -2.0);
        assert_eq!(decode(Dtype::BF16, &0x4049_u16.to_le_bytes()), 3.140_625);
        assert_eq!(decode(Dtype::F32, &0.1_f32.to_le_bytes()), f64::from(0.1_f32));
        assert_eq!(decode(Dtype::F64, &0.1_f64.to_le_bytes()), 0.1);
        assert!(decoder(Dtype::I64).is_none());
    }
}
