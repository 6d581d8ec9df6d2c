//! Tensors with values: [`Literal`] holds what a file gave, exactly; [`Array`] is what the reference
//! evaluation computes with.

use std::cmp::Ordering;

use crate::types::{DType, TensorType};

/// Values in their own element type.
#[derive(Debug, Clone, PartialEq)]
pub enum Values {
    /// f32
    F32(Vec<f32>),
    /// f64
    F64(Vec<f64>),
    /// Bits of bf16
    BF16(Vec<u16>),
    /// i64
    I64(Vec<i64>),
    /// u8
    U8(Vec<u8>),
}

/// A constant tensor, row-major.
#[derive(Debug, Clone, PartialEq)]
pub struct Literal {
    /// Sizes.
    pub dims: Vec<usize>,
    /// `dims.product()` values.
    pub values: Values,
}

impl Literal {
    /// A scalar (rank 0).
    pub fn scalar(dtype: DType, value: f64) -> Literal {
        Literal::from_f64(dtype, &[], &[value])
    }

    /// Values converted to `dtype`; integers truncate.
    pub fn from_f64(dtype: DType, dims: &[usize], values: &[f64]) -> Literal {
        let values = match dtype {
            DType::F32 => Values::F32(values.iter().map(|&v| v as f32).collect()),
            DType::F64 => Values::F64(values.to_vec()),
            DType::BF16 => Values::BF16(values.iter().map(|&v| bf16_bits(v)).collect()),
            DType::I64 => Values::I64(values.iter().map(|&v| v as i64).collect()),
            DType::U8 => Values::U8(values.iter().map(|&v| v as u8).collect()),
        };
        Literal {
            dims: dims.to_vec(),
            values,
        }
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        match self.values {
            Values::F32(_) => DType::F32,
            Values::F64(_) => DType::F64,
            Values::BF16(_) => DType::BF16,
            Values::I64(_) => DType::I64,
            Values::U8(_) => DType::U8,
        }
    }

    /// Its type, in plain layout.
    pub fn ty(&self) -> TensorType {
        TensorType::fixed(self.dtype(), &self.dims)
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        match &self.values {
            Values::F32(v) => v.len(),
            Values::F64(v) => v.len(),
            Values::BF16(v) => v.len(),
            Values::I64(v) => v.len(),
            Values::U8(v) => v.len(),
        }
    }

    /// Whether it has no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All values as f64 (exact for integers below 2^53).
    pub fn to_f64(&self) -> Vec<f64> {
        match &self.values {
            Values::F32(v) => v.iter().map(|&x| f64::from(x)).collect(),
            Values::F64(v) => v.clone(),
            Values::BF16(v) => v.iter().map(|&x| bf16_value(x)).collect(),
            Values::I64(v) => v.iter().map(|&x| x as f64).collect(),
            Values::U8(v) => v.iter().map(|&x| f64::from(x)).collect(),
        }
    }

    /// The single value all elements share, bit by bit, if they do. Large integers are compared exactly.
    pub fn splat(&self) -> Option<f64> {
        fn same<T: Copy, K: PartialEq>(values: &[T], key: impl Fn(T) -> K) -> Option<T> {
            let first = *values.first()?;
            values.iter().all(|&v| key(v) == key(first)).then_some(first)
        }
        match &self.values {
            Values::F32(v) => same(v, f32::to_bits).map(f64::from),
            Values::F64(v) => same(v, f64::to_bits),
            Values::BF16(v) => same(v, |x| x).map(bf16_value),
            Values::I64(v) => same(v, |x| x).map(|x| x as f64),
            Values::U8(v) => same(v, |x| x).map(f64::from),
        }
    }

    /// For the reference evaluation.
    pub fn to_array(&self) -> Array {
        Array {
            dims: self.dims.clone(),
            data: self.to_f64(),
        }
    }

    /// Little-endian bytes, for object files and hashing.
    pub fn to_bytes(&self) -> Vec<u8> {
        match &self.values {
            Values::F32(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Values::F64(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Values::BF16(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Values::I64(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Values::U8(v) => v.clone(),
        }
    }
}

/// The bits of the bf16 nearest to `value`, the even one of two.
fn bf16_bits(value: f64) -> u16 {
    let single = value as f32;
    if single.is_nan() {
        return 0x7fc0;
    }
    let mut bits = single.to_bits();
    // Where rounding to f32 has made a tie, what it took decides.
    if bits & 0xffff == 0x8000 {
        let rounded = f64::from(single).abs();
        match value.abs().total_cmp(&rounded) {
            Ordering::Less => bits -= 1,
            Ordering::Greater => bits += 1,
            Ordering::Equal => {}
        }
    }
    ((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16
}

/// The value of a bf16's bits.
pub(crate) fn bf16_value(bits: u16) -> f64 {
    f64::from(f32::from_bits(u32::from(bits) << 16))
}

/// An f64 array, row-major: every value of the reference evaluation, integers included (exact below 2^53).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Array {
    /// Sizes.
    pub dims: Vec<usize>,
    /// `dims.product()` values.
    pub data: Vec<f64>,
}

impl Array {
    /// All zeros.
    pub fn zeros(dims: &[usize]) -> Array {
        Array {
            dims: dims.to_vec(),
            data: vec![0.0; dims.iter().product()],
        }
    }

    /// Values in row-major order of `dims`.
    pub fn new(dims: &[usize], data: Vec<f64>) -> Array {
        debug_assert_eq!(dims.iter().product::<usize>(), data.len());
        Array {
            dims: dims.to_vec(),
            data,
        }
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.data.len()
    }

    /// Whether it has no elements.
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    /// Row-major strides in elements.
    pub fn strides(&self) -> Vec<usize> {
        let mut strides = vec![1; self.dims.len()];
        for i in (1..self.dims.len()).rev() {
            strides[i - 1] = strides[i] * self.dims[i];
        }
        strides
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bf16_rounds_to_nearest_and_ties_to_even() {
        let rounded = |v: f64| Literal::scalar(DType::BF16, v).to_f64()[0];
        let ulp = 1.0 / 128.0;
        assert_eq!(rounded(1.0 + ulp), 1.0 + ulp);
        assert_eq!(rounded(1.0 + ulp / 2.0), 1.0);
        assert_eq!(rounded(1.0 + 1.5 * ulp), 1.0 + 2.0 * ulp);
        assert_eq!(rounded(-1.0 - 0.49 * ulp), -1.0);
        // These round to a tie in f32 and lie beside it.
        assert_eq!(rounded(1.0 + ulp / 2.0 + 1e-12), 1.0 + ulp);
        assert_eq!(rounded(-1.0 - 1.5 * ulp + 1e-12), -1.0 - ulp);
        assert_eq!(rounded(3.4e38), f64::INFINITY);
        assert!(rounded(f64::NAN).is_nan());
        assert_eq!(rounded(-0.0).to_bits(), (-0.0f64).to_bits());
    }
}
