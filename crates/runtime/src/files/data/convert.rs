//! Conversion of an npy array's bytes to a model's element type, in C order. Values are not scaled.

use syncbn_abi::ElementType;

use super::{
    half::f16_to_f64,
    npy::{Header, Type},
};

/// A number of a file.
#[derive(Debug, Clone, Copy)]
enum Number {
    Integer(i128),
    Float(f64),
}

impl Type {
    /// Whether the values are integers (bool is not one).
    pub fn is_integer(self) -> bool {
        matches!(self.letter, b'i' | b'u')
    }

    /// numpy's name of the type.
    pub fn name(self) -> String {
        let kind = match self.letter {
            b'b' => return "bool".into(),
            b'i' => "int",
            b'u' => "uint",
            _ => "float",
        };
        format!("{kind}{}", self.bytes * 8)
    }

    fn decode(self, bytes: &[u8]) -> Number {
        let mut raw = 0_u64;
        for (i, byte) in bytes.iter().enumerate() {
            let place = if self.big_endian { bytes.len() - 1 - i } else { i };
            raw |= u64::from(*byte) << (8 * place);
        }
        match (self.letter, self.bytes) {
            (b'f', 2) => Number::Float(f16_to_f64(raw as u16)),
            (b'f', 4) => Number::Float(f64::from(f32::from_bits(raw as u32))),
            (b'f', _) => Number::Float(f64::from_bits(raw)),
            (b'i', bytes) => {
                let unused = 64 - 8 * bytes as u32;
                Number::Integer(i128::from((raw << unused) as i64 >> unused))
            }
            (b'b', _) => Number::Integer(i128::from(raw != 0)),
            _ => Number::Integer(i128::from(raw)),
        }
    }
}

/// Converts the elements of an array to little-endian values of `target` in C order. Errors are sentences
/// about the array; an i64 target takes whole numbers in its range only.
pub fn convert(header: &Header, bytes: Vec<u8>, target: ElementType) -> Result<Vec<u8>, String> {
    let from = header.element;
    let same = match target {
        ElementType::F32 => from.letter == b'f' && from.bytes == 4,
        ElementType::F64 => from.letter == b'f' && from.bytes == 8,
        ElementType::I64 => from.letter == b'i' && from.bytes == 8,
    };
    let bytes = if same && !from.big_endian {
        bytes
    } else {
        let mut out = Vec::with_capacity(bytes.len() / from.bytes * target.bytes() as usize);
        for (index, element) in bytes.chunks_exact(from.bytes).enumerate() {
            let number = from.decode(element);
            match target {
                ElementType::F32 => {
                    let value = match number {
                        Number::Integer(value) => value as f32,
                        Number::Float(value) => value as f32,
                    };
                    out.extend(value.to_le_bytes());
                }
                ElementType::F64 => {
                    let value = match number {
                        Number::Integer(value) => value as f64,
                        Number::Float(value) => value,
                    };
                    out.extend(value.to_le_bytes());
                }
                ElementType::I64 => {
                    let whole = match number {
                        Number::Integer(value) => i64::try_from(value).ok(),
                        Number::Float(value) => {
                            let exact = value.fract() == 0.0 && value.abs() < 2_f64.powi(63);
                            exact.then_some(value as i64)
                        }
                    };
                    let whole =
                        whole.ok_or_else(|| format!("element {index} is not a 64-bit whole number"))?;
                    out.extend(whole.to_le_bytes());
                }
            }
        }
        out
    };
    let transposed = header.fortran && header.shape.len() > 1;
    Ok(if transposed {
        to_c_order(&header.shape, &bytes, target.bytes() as usize)
    } else {
        bytes
    })
}

/// Reorders elements of `width` bytes from first-index-fastest to last-index-fastest.
fn to_c_order(shape: &[u64], bytes: &[u8], width: usize) -> Vec<u8> {
    let strides: Vec<usize> = shape
        .iter()
        .scan(1, |stride, size| {
            let current = *stride;
            *stride *= *size as usize;
            Some(current)
        })
        .collect();
    let mut out = Vec::with_capacity(bytes.len());
    let mut index = vec![0; shape.len()];
    for _ in 0..bytes.len() / width {
        let source: usize = index.iter().zip(&strides).map(|(i, stride)| i * stride).sum();
        out.extend_from_slice(&bytes[source * width..(source + 1) * width]);
        for axis in (0..shape.len()).rev() {
            index[axis] += 1;
            if index[axis] < shape[axis] as usize {
                break;
            }
            index[axis] = 0;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(descr: (u8, usize, bool), fortran: bool, shape: &[u64]) -> Header {
        let element = Type {
            letter: descr.0,
            bytes: descr.1,
            big_endian: descr.2,
        };
        Header {
            element,
            fortran,
            shape: shape.to_vec(),
            bytes: 0,
        }
    }

    fn f64s(bytes: &[u8]) -> Vec<f64> {
        bytes
            .chunks_exact(8)
            .map(|b| f64::from_le_bytes(b.try_into().unwrap()))
            .collect()
    }

    #[test]
    fn every_numeric_type_becomes_the_inputs_type() {
        let cases: [(u8, usize, bool, Vec<u8>, f64); 12] = [
            (b'u', 1, false, vec![200], 200.0),
            (b'i', 1, false, vec![200], -56.0),
            (b'u', 2, true, vec![1, 2], 258.0),
            (b'i', 2, false, (-3_i16).to_le_bytes().to_vec(), -3.0),
            (b'u', 4, false, u32::MAX.to_le_bytes().to_vec(), 4_294_967_295.0),
            (b'i', 4, true, (-70_000_i32).to_be_bytes().to_vec(), -70_000.0),
            (
                b'u',
                8,
                false,
                u64::MAX.to_le_bytes().to_vec(),
                18_446_744_073_709_551_615.0,
            ),
            (b'i', 8, false, (-9_i64).to_le_bytes().to_vec(), -9.0),
            (b'f', 2, false, 0x3e00_u16.to_le_bytes().to_vec(), 1.5),
            (b'f', 4, true, 0.25_f32.to_be_bytes().to_vec(), 0.25),
            (b'f', 8, false, 1e-300_f64.to_le_bytes().to_vec(), 1e-300),
            (b'b', 1, false, vec![1], 1.0),
        ];
        for (letter, width, big, bytes, value) in cases {
            let header = header((letter, width, big), false, &[1]);
            let wide = convert(&header, bytes.clone(), ElementType::F64).unwrap();
            assert_eq!(f64s(&wide), [value], "{}", header.element.name());
            let narrow = convert(&header, bytes, ElementType::F32).unwrap();
            assert_eq!(f32::from_le_bytes(narrow.try_into().unwrap()), value as f32);
        }
    }

    #[test]
    fn integers_stay_exact_and_fractions_are_refused() {
        let large = (1_i64 << 62) + 1;
        let from = header((b'i', 8, true), false, &[1]);
        let out = convert(&from, large.to_be_bytes().to_vec(), ElementType::I64).unwrap();
        assert_eq!(out, large.to_le_bytes());
        let from = header((b'f', 8, false), false, &[2]);
        let bytes = [2.0_f64.to_le_bytes(), 2.5_f64.to_le_bytes()].concat();
        assert!(
            convert(&from, bytes, ElementType::I64)
                .unwrap_err()
                .contains("element 1")
        );
        let from = header((b'u', 8, false), false, &[1]);
        assert!(convert(&from, u64::MAX.to_le_bytes().to_vec(), ElementType::I64).is_err());
    }

    #[test]
    fn fortran_order_is_undone() {
        let shape = [2, 3, 2];
        let value = |i: u64, j: u64, k: u64| (100 * i + 10 * j + k) as f64;
        let mut fortran = Vec::new();
        for k in 0..2 {
            for j in 0..3 {
                for i in 0..2 {
                    fortran.extend(value(i, j, k).to_le_bytes());
                }
            }
        }
        let out = convert(&header((b'f', 8, false), true, &shape), fortran, ElementType::F64).unwrap();
        let expected: Vec<f64> = (0..12).map(|e| value(e / 6, e / 2 % 3, e % 2)).collect();
        assert_eq!(f64s(&out), expected);
    }
}
