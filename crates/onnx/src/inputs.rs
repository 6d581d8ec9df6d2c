//! Data inputs: their first dimension is the batch, the other sizes must be known.

use syncbn_ir::DType;

use crate::error::ImportError;
use crate::names::Names;
use crate::options::ImportOptions;
use crate::proto::tensor_shape_proto::dimension::Value as DimValue;
use crate::proto::type_proto::Value as TypeValue;
use crate::proto::{TensorShapeProto, ValueInfoProto};
use crate::tensors::Element;

/// A graph input that the executable reads.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct DataInput {
    /// Its name.
    pub name: String,
    /// Element type in the file.
    pub dtype: DType,
    /// Its batch, when it is fixed.
    pub batch: Option<usize>,
    /// Sizes after the batch.
    pub sizes: Vec<usize>,
}

/// One dimension as declared.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Declared {
    Size(usize),
    Symbol(String),
}

/// Number of the element type, and the shape if one is declared.
type DeclaredType = (i32, Option<Vec<Declared>>);

/// Element type and declared shape of an input or value_info; None when it is not a tensor.
pub(crate) fn declared(info: &ValueInfoProto) -> Result<Option<DeclaredType>, ImportError> {
    let Some(TypeValue::TensorType(tensor)) = info.r#type.as_ref().and_then(|t| t.value.as_ref()) else {
        return Ok(None);
    };
    let dims = tensor
        .shape
        .as_ref()
        .map(|s| declared_dims(info.name(), s))
        .transpose()?;
    Ok(Some((tensor.elem_type(), dims)))
}

fn declared_dims(name: &str, shape: &TensorShapeProto) -> Result<Vec<Declared>, ImportError> {
    let mut dims = Vec::new();
    for dim in &shape.dim {
        dims.push(match &dim.value {
            Some(DimValue::DimValue(v)) => {
                let size = usize::try_from(*v);
                Declared::Size(size.map_err(|_| {
                    ImportError::user(format!("\"{name}\" has a negative dim {v} in its shape"))
                })?)
            }
            Some(DimValue::DimParam(p)) => Declared::Symbol(p.clone()),
            None => Declared::Symbol(String::new()),
        });
    }
    Ok(dims)
}

/// Reads a data input.
pub(crate) fn data_input(
    info: &ValueInfoProto,
    names: &Names,
    sizes_of: &dyn Fn(&str) -> Option<Vec<usize>>,
    options: &ImportOptions,
) -> Result<DataInput, ImportError> {
    let name = info.name();
    let fail = |text: String| ImportError::user(format!("input \"{name}\": {text}"));
    let Some((number, dims)) = declared(info)? else {
        return Err(ImportError::unsupported(format!(
            "input \"{name}\" is not a tensor"
        )));
    };
    let dtype = match Element::new(number).map_err(|mut e| {
        e.message = format!("input \"{name}\": {}", e.message);
        e
    })? {
        Element::Float(dtype) => dtype,
        Element::Signed(8) => DType::I64,
        other => {
            let text = format!("input \"{name}\" has {} elements", other.describe());
            return Err(ImportError::unsupported(text).note("inputs are float, double or int64"));
        }
    };
    let given = options
        .input_shapes
        .iter()
        .find(|(n, _)| n == name)
        .map(|(_, s)| s.clone());
    let Some(dims) = dims else {
        let sizes = given.ok_or_else(|| {
            fail("its shape is not declared".to_string()).note(format!("give --input-shape {name}=3x224x224"))
        })?;
        return Ok(DataInput {
            name: name.to_string(),
            dtype,
            batch: None,
            sizes,
        });
    };
    let Some((first, rest)) = dims.split_first() else {
        return Err(ImportError::unsupported(format!(
            "input \"{name}\" is a scalar: it has no batch"
        )));
    };
    let batch = match first {
        Declared::Size(0) => return Err(fail("its batch is zero".to_string())),
        Declared::Size(n) => Some(*n),
        Declared::Symbol(_) => None,
    };
    let sizes = match given {
        Some(sizes) if sizes.len() == rest.len() => sizes,
        Some(sizes) => {
            return Err(fail(format!(
                "--input-shape gives {} sizes after the batch, the file has {}",
                sizes.len(),
                rest.len()
            )));
        }
        None => known_sizes(name, rest, names, sizes_of)?,
    };
    match sizes.iter().position(|&s| s == 0) {
        Some(i) => Err(fail(format!("its dim {} is zero: it would be empty", i + 1))),
        None => Ok(DataInput {
            name: name.to_string(),
            dtype,
            batch,
            sizes,
        }),
    }
}

fn known_sizes(
    name: &str,
    rest: &[Declared],
    names: &Names,
    sizes_of: &dyn Fn(&str) -> Option<Vec<usize>>,
) -> Result<Vec<usize>, ImportError> {
    let mut sizes = Vec::with_capacity(rest.len());
    let mut symbols = Vec::new();
    for (i, dim) in rest.iter().enumerate() {
        match dim {
            Declared::Size(n) => sizes.push(*n),
            Declared::Symbol(symbol) => match channels_of(name, names, sizes_of).filter(|_| i == 0) {
                Some(channels) => sizes.push(channels),
                None => symbols.push(if symbol.is_empty() {
                    "?".to_string()
                } else {
                    symbol.clone()
                }),
            },
        }
    }
    if symbols.is_empty() {
        return Ok(sizes);
    }
    let example = rest.iter().map(|d| match d {
        Declared::Size(n) => n.to_string(),
        Declared::Symbol(_) => "224".to_string(),
    });
    let example = example.collect::<Vec<_>>().join("x");
    Err(ImportError::user(format!(
        "input \"{name}\" has the symbolic sizes {} after its first dimension; only the batch may be dynamic",
        symbols.join(", ")
    ))
    .note(format!(
        "give its shape after the batch, for example --input-shape {name}={example}"
    )))
}

/// The channels (or features) that the first layer's weight says an input has.
fn channels_of(name: &str, names: &Names, sizes_of: &dyn Fn(&str) -> Option<Vec<usize>>) -> Option<usize> {
    let mut queue = vec![name.to_string()];
    let mut budget = 64;
    while let Some(name) = queue.pop() {
        budget -= 1;
        if budget == 0 {
            return None;
        }
        for &(node, _) in names.readers(&name).iter().filter(|(_, slot)| *slot == 0) {
            let weight = node.input.get(1).and_then(|w| sizes_of(w));
            let int = |name: &str| node.attribute.iter().find(|a| a.name() == name).map(|a| a.i());
            match (node.op_type(), weight.as_deref()) {
                ("Conv", Some([_, per_group, ..])) => {
                    let groups = usize::try_from(int("group").unwrap_or(1)).ok()?;
                    return per_group.checked_mul(groups);
                }
                ("Gemm", Some(&[n, k])) => return Some(if int("transB") == Some(1) { k } else { n }),
                ("MatMul", Some(&[k, _])) => return Some(k),
                ("BatchNormalization", Some(&[c])) => return Some(c),
                ("Identity" | "Cast" | "CastLike" | "Dropout" | "Relu" | "Clip", _) => {
                    queue.extend(node.output.first().cloned());
                }
                _ => {}
            }
        }
    }
    None
}
