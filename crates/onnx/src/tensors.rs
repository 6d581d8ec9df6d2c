//! Tensors of a file: sizes are checked against the bytes that are there before anything is allocated.

use std::path::Path;

use syncbn_ir::{DType, Literal, Values};

use crate::error::ImportError;
use crate::external::{self, ExternalData};
use crate::proto::TensorProto;
use crate::proto::tensor_proto::{DataLocation, DataType};

/// Element types that can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Element {
    /// `float` or `double`.
    Float(DType),
    /// An integer of so many bytes.
    Signed(usize),
    /// An unsigned integer or bool.
    Unsigned(usize),
}

impl Element {
    fn bytes(self) -> u64 {
        match self {
            Element::Float(dtype) => dtype.bytes(),
            Element::Signed(n) | Element::Unsigned(n) => n as u64,
        }
    }

    /// As in `32-bit integer`.
    pub(crate) fn describe(self) -> String {
        match self {
            Element::Float(dtype) => dtype.name().to_string(),
            Element::Signed(n) => format!("{}-bit integer", 8 * n),
            Element::Unsigned(n) => format!("{}-bit unsigned", 8 * n),
        }
    }

    /// The element type with this ONNX number.
    pub(crate) fn new(number: i32) -> Result<Element, ImportError> {
        let unknown = || ImportError::user(format!("element type {number} is undefined or unknown"));
        match DataType::try_from(number).map_err(|_| unknown())? {
            DataType::Float => Ok(Element::Float(DType::F32)),
            DataType::Double => Ok(Element::Float(DType::F64)),
            DataType::Int8 => Ok(Element::Signed(1)),
            DataType::Int16 => Ok(Element::Signed(2)),
            DataType::Int32 => Ok(Element::Signed(4)),
            DataType::Int64 => Ok(Element::Signed(8)),
            DataType::Bool | DataType::Uint8 => Ok(Element::Unsigned(1)),
            DataType::Uint16 => Ok(Element::Unsigned(2)),
            DataType::Uint32 => Ok(Element::Unsigned(4)),
            DataType::Uint64 => Ok(Element::Unsigned(8)),
            DataType::Undefined => Err(unknown()),
            DataType::Float16 | DataType::Bfloat16 => {
                let name = if number == 10 { "float16" } else { "bfloat16" };
                Err(
                    ImportError::unsupported(format!("element type {name} is not supported for training"))
                        .note("export the network in float32: model.float() before torch.onnx.export"),
                )
            }
            other => {
                let name = other.as_str_name().to_lowercase();
                Err(ImportError::unsupported(format!(
                    "element type {name} is not supported"
                )))
            }
        }
    }
}

/// A tensor whose header has been checked against its data.
#[derive(Debug, Clone)]
pub(crate) struct Tensor {
    /// Element type in the file.
    pub element: Element,
    /// Sizes.
    pub dims: Vec<usize>,
    external: Option<ExternalData>,
}

/// Checked sizes of a tensor and their product.
fn sizes(tensor: &TensorProto, element: Element) -> Result<(Vec<usize>, u64), ImportError> {
    let fail = |text: String| ImportError::user(format!("tensor \"{}\": {text}", tensor.name()));
    let mut dims = Vec::with_capacity(tensor.dims.len().min(64));
    for &d in &tensor.dims {
        let size = usize::try_from(d).map_err(|_| fail(format!("dim {d} is negative")))?;
        dims.push(size);
    }
    // Zero sizes must not hide an overflow of the others.
    let total = dims
        .iter()
        .filter(|&&d| d > 0)
        .try_fold(element.bytes(), |p, &d| p.checked_mul(d as u64));
    if total.is_none_or(|t| t > i64::MAX as u64) {
        return Err(fail(format!(
            "its shape {:?} is too large: the size overflows",
            tensor.dims
        )));
    }
    let elements = dims.iter().map(|&d| d as u64).product();
    Ok((dims, elements))
}

impl Tensor {
    /// Checks a tensor's element type, sizes and number of bytes.
    pub(crate) fn check(tensor: &TensorProto, folder: Option<&Path>) -> Result<Tensor, ImportError> {
        let fail = |text: String| ImportError::user(format!("tensor \"{}\": {text}", tensor.name()));
        let element = Element::new(tensor.data_type()).map_err(|mut e| {
            e.message = format!("tensor \"{}\": {}", tensor.name(), e.message);
            e
        })?;
        if tensor.segment.is_some() {
            return Err(ImportError::unsupported(format!(
                "tensor \"{}\" is stored in segments",
                tensor.name()
            )));
        }
        let (dims, elements) = sizes(tensor, element)?;
        let bytes = elements * element.bytes();
        let mut external = None;
        if tensor.data_location() == DataLocation::External {
            external = Some(external::locate(tensor, bytes, folder)?);
        } else if let Some(raw) = &tensor.raw_data {
            if raw.len() as u64 != bytes {
                return Err(fail(format!(
                    "its shape {:?} takes {bytes} bytes, its data has a length of {} bytes",
                    tensor.dims,
                    raw.len()
                )));
            }
        } else {
            let count = typed_count(tensor, element);
            if count as u64 != elements {
                return Err(fail(format!(
                    "its shape {:?} has a size of {elements} elements, its data {count}",
                    tensor.dims
                )));
            }
        }
        Ok(Tensor {
            element,
            dims,
            external,
        })
    }

    /// The bytes, if they are stored as such.
    fn raw(&self, tensor: &TensorProto) -> Result<Option<Vec<u8>>, ImportError> {
        match &self.external {
            Some(data) => Ok(Some(data.read().map_err(ImportError::user)?)),
            None => Ok(tensor.raw_data.clone()),
        }
    }

    /// The values of a floating-point tensor, in `dtype`.
    pub(crate) fn literal(&self, tensor: &TensorProto, dtype: DType) -> Result<Literal, ImportError> {
        let values = match (self.element, self.raw(tensor)?) {
            (Element::Float(DType::F32), Some(raw)) => Values::F32(words(&raw, f32::from_le_bytes)),
            (Element::Float(DType::F32), None) => Values::F32(tensor.float_data.clone()),
            (Element::Float(_), Some(raw)) => Values::F64(words(&raw, f64::from_le_bytes)),
            (Element::Float(_), None) => Values::F64(tensor.double_data.clone()),
            _ => {
                let text = format!("tensor \"{}\" is not of a floating-point type", tensor.name());
                return Err(ImportError::user(text));
            }
        };
        let values = match (values, dtype) {
            (Values::F32(v), DType::F64) => Values::F64(v.into_iter().map(f64::from).collect()),
            (Values::F64(v), DType::F32) => Values::F32(v.into_iter().map(|x| x as f32).collect()),
            (values, _) => values,
        };
        Ok(Literal {
            dims: self.dims.clone(),
            values,
        })
    }

    /// The values of an integer tensor.
    pub(crate) fn integers(&self, tensor: &TensorProto) -> Result<Vec<i64>, ImportError> {
        let Some(raw) = self.raw(tensor)? else {
            return Ok(match self.element {
                Element::Signed(8) => tensor.int64_data.clone(),
                Element::Unsigned(4 | 8) => tensor.uint64_data.iter().map(|&v| v as i64).collect(),
                _ => tensor.int32_data.iter().map(|&v| i64::from(v)).collect(),
            });
        };
        Ok(match self.element {
            Element::Signed(1) => raw.iter().map(|&b| i64::from(b as i8)).collect(),
            Element::Signed(2) => words(&raw, |b| i64::from(i16::from_le_bytes(b))),
            Element::Signed(4) => words(&raw, |b| i64::from(i32::from_le_bytes(b))),
            Element::Unsigned(1) => raw.iter().map(|&b| i64::from(b)).collect(),
            Element::Unsigned(2) => words(&raw, |b| i64::from(u16::from_le_bytes(b))),
            Element::Unsigned(4) => words(&raw, |b| i64::from(u32::from_le_bytes(b))),
            _ => words(&raw, i64::from_le_bytes),
        })
    }
}

fn typed_count(tensor: &TensorProto, element: Element) -> usize {
    match element {
        Element::Float(DType::F32) => tensor.float_data.len(),
        Element::Float(_) => tensor.double_data.len(),
        Element::Signed(8) => tensor.int64_data.len(),
        Element::Unsigned(4 | 8) => tensor.uint64_data.len(),
        _ => tensor.int32_data.len(),
    }
}

fn words<const N: usize, T>(raw: &[u8], convert: impl Fn([u8; N]) -> T) -> Vec<T> {
    let (chunks, _) = raw.as_chunks::<N>();
    chunks.iter().map(|&chunk| convert(chunk)).collect()
}
