//! Reading and writing npz and safetensors files.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use npyz::npz::{NpzArchive, NpzWriter};
use npyz::{AutoSerialize, DType, WriterBuilder};
use safetensors::{Dtype, SafeTensors};
use syncbn_ir::Array;

/// Arrays by name.
pub type Arrays = BTreeMap<String, Array>;

/// An array as it is written to an npz file.
pub enum Column<'a> {
    /// float32
    F32(&'a Array),
    /// float64
    F64(&'a Array),
    /// int64
    I64(&'a Array),
}

/// All arrays of an npz file, converted to f64.
pub fn read_npz(path: &Path) -> Arrays {
    let mut archive = NpzArchive::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let names: Vec<String> = archive.array_names().map(str::to_string).collect();
    let mut arrays = Arrays::new();
    for name in names {
        let array = archive.by_name(&name).unwrap().unwrap();
        let dims: Vec<usize> = array.shape().iter().map(|&n| n as usize).collect();
        let DType::Plain(kind) = array.dtype() else {
            panic!("{name} is a record")
        };
        let data: Vec<f64> = match &kind.to_string()[1..] {
            "f4" => convert(array.into_vec::<f32>().unwrap(), f64::from),
            "f8" => array.into_vec::<f64>().unwrap(),
            "i8" => convert(array.into_vec::<i64>().unwrap(), |v| v as f64),
            other => panic!("{name} holds {other}"),
        };
        arrays.insert(name, Array::new(&dims, data));
    }
    arrays
}

fn convert<T>(values: Vec<T>, f: impl Fn(T) -> f64) -> Vec<f64> {
    values.into_iter().map(f).collect()
}

/// Writes an npz file.
pub fn write_npz(path: &Path, columns: &[(&str, Column)]) {
    let mut archive = NpzWriter::create(path).unwrap();
    for (name, column) in columns {
        match column {
            Column::F32(a) => write(&mut archive, name, a, |v| v as f32),
            Column::F64(a) => write(&mut archive, name, a, |v| v),
            Column::I64(a) => write(&mut archive, name, a, |v| v as i64),
        }
    }
}

fn write<T: AutoSerialize>(
    archive: &mut NpzWriter<std::io::BufWriter<fs::File>>,
    name: &str,
    array: &Array,
    f: impl Fn(f64) -> T,
) {
    let shape: Vec<u64> = array.dims.iter().map(|&n| n as u64).collect();
    let entry = archive.array(name, Default::default()).unwrap();
    let mut writer = entry.default_dtype().shape(&shape).begin_nd().unwrap();
    writer.extend(array.data.iter().map(|&v| f(v))).unwrap();
    writer.finish().unwrap();
}

/// All tensors of a safetensors file, converted to f64.
pub fn read_safetensors(path: &Path) -> Arrays {
    let bytes = fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let file = SafeTensors::deserialize(&bytes).unwrap();
    file.iter()
        .map(|(name, view)| {
            let data = view.data();
            let values = match view.dtype() {
                Dtype::F32 => {
                    let chunks = data.as_chunks::<4>().0.iter();
                    chunks.map(|b| f64::from(f32::from_le_bytes(*b))).collect()
                }
                Dtype::F64 => {
                    let chunks = data.as_chunks::<8>().0.iter();
                    chunks.map(|b| f64::from_le_bytes(*b)).collect()
                }
                other => panic!("{name} holds {other:?}"),
            };
            (name.to_string(), Array::new(view.shape(), values))
        })
        .collect()
}
