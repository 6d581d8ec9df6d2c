//! `--precision`: `P`, or `cpu=P,cuda=P`.

use syncbn_ir::DType;
use syncbn_mlir::Products;

/// What `--precision` says of each target; None where it says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Precision {
    /// Element type of parameters and activations.
    pub dtype: Option<DType>,
    /// How GPUs multiply matrices.
    pub products: Option<Products>,
    /// Whether it is asked for on all targets.
    pub everywhere: bool,
}

/// Reads the flag's value.
pub fn precision(text: &str) -> Result<Precision, String> {
    let mut read = Precision::default();
    for part in text.split(',') {
        match part.split_once('=') {
            None if text.contains(',') => {
                return Err("several precisions need targets: cpu=P,cuda=P".to_string());
            }
            None => {
                (read.dtype, read.products) = (cpu(part), cuda(part));
                if read == Precision::default() {
                    return Err(format!("{}; {}", expected_of("cpu"), expected_of("cuda")));
                }
                read.everywhere = true;
            }
            Some(("cpu", name)) => read.dtype = Some(cpu(name).ok_or_else(|| expected_of("cpu"))?),
            Some(("cuda", name)) => read.products = Some(cuda(name).ok_or_else(|| expected_of("cuda"))?),
            Some((other, _)) => return Err(format!("\"{other}\" is no target; there are cpu and cuda")),
        }
    }
    Ok(read)
}

fn cpu(name: &str) -> Option<DType> {
    match name {
        "f32" => Some(DType::F32),
        "f64" => Some(DType::F64),
        _ => None,
    }
}

fn cuda(name: &str) -> Option<Products> {
    match name {
        "tf32" => Some(Products::Tf32),
        "f32" => Some(Products::ThreeTf32),
        "bf16" => Some(Products::Bf16),
        _ => None,
    }
}

fn expected_of(target: &str) -> String {
    match target {
        "cpu" => "the cpu target has f32 and f64".to_string(),
        _ => "the cuda target has tf32, bf16 and f32".to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_precision_is_for_the_targets_that_have_it() {
        let read = |text| precision(text).map(|p| (p.dtype, p.products));
        assert_eq!(read("f32"), Ok((Some(DType::F32), Some(Products::ThreeTf32))));
        assert_eq!(read("f64"), Ok((Some(DType::F64), None)));
        assert_eq!(read("tf32"), Ok((None, Some(Products::Tf32))));
        assert_eq!(
            read("cpu=f32,cuda=tf32"),
            Ok((Some(DType::F32), Some(Products::Tf32)))
        );
        assert_eq!(read("cuda=f32"), Ok((None, Some(Products::ThreeTf32))));
        assert_eq!(read("bf16"), Ok((None, Some(Products::Bf16))));
    }

    #[test]
    fn others_are_refused() {
        for text in [
            "f16", "cpu=tf32", "cpu=bf16", "cuda=f64", "gpu=f32", "f32,tf32", "",
        ] {
            assert!(precision(text).is_err(), "{text}");
        }
    }
}
