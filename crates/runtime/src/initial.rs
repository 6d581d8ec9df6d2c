//! Initial values of parameters and running statistics.
//!
//! Random values have the same bits on every machine: the generator is ChaCha8 seeded by the seed and the
//! tensor's name, and the normal distribution comes from Marsaglia's polar method with the logarithm of
//! `libm`, which is compiled in; the system's mathematical library is not asked.

use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};
use syncbn_abi::{ElementType, Initial, Parameter};

use crate::error::{Error, Result};

/// Fills `arena` with the initial values of `tensors`.
pub fn fill(tensors: &[Parameter], element_type: ElementType, data: &[u8], arena: &mut [u8]) -> Result<()> {
    for tensor in tensors {
        let target = region(tensor, element_type, arena.len())
            .and_then(|range| arena.get_mut(range))
            .ok_or_else(|| outside(tensor))?;
        match &tensor.initial {
            Initial::Data { offset } => {
                let start = *offset as usize;
                let source = start
                    .checked_add(target.len())
                    .and_then(|end| data.get(start..end))
                    .ok_or_else(|| outside(tensor))?;
                target.copy_from_slice(source);
            }
            Initial::Fill { value } => store(target, element_type, std::iter::repeat(*value)),
            Initial::KaimingNormal { fan_in, seed } => {
                let deviation = (2.0 / (*fan_in).max(1) as f64).sqrt();
                let normal = Normal::new(*seed, &tensor.name);
                store(target, element_type, normal.map(|value| deviation * value));
            }
        }
    }
    Ok(())
}

/// The bytes of `tensor` in an arena of `length` bytes.
pub fn region(
    tensor: &Parameter,
    element_type: ElementType,
    length: usize,
) -> Option<std::ops::Range<usize>> {
    let start = usize::try_from(tensor.offset).ok()?;
    let bytes = usize::try_from(tensor.elements().checked_mul(element_type.bytes())?).ok()?;
    let end = start.checked_add(bytes)?;
    (end <= length).then_some(start..end)
}

fn outside(tensor: &Parameter) -> Error {
    Error::internal(format!("tensor \"{}\" lies outside its memory", tensor.name))
}

/// Stores one value for each element of `target`.
pub fn store(target: &mut [u8], element_type: ElementType, values: impl Iterator<Item = f64>) {
    match element_type {
        ElementType::F32 => {
            for (element, value) in target.as_chunks_mut::<4>().0.iter_mut().zip(values) {
                *element = (value as f32).to_le_bytes();
            }
        }
        ElementType::F64 => {
            for (element, value) in target.as_chunks_mut::<8>().0.iter_mut().zip(values) {
                *element = value.to_le_bytes();
            }
        }
        ElementType::I64 => {
            for (element, value) in target.as_chunks_mut::<8>().0.iter_mut().zip(values) {
                *element = (value as i64).to_le_bytes();
            }
        }
    }
}

/// The elements of `bytes` as f64.
pub fn values(bytes: &[u8], element_type: ElementType) -> Vec<f64> {
    match element_type {
        ElementType::F32 => bytes
            .as_chunks::<4>()
            .0
            .iter()
            .map(|b| f64::from(f32::from_le_bytes(*b)))
            .collect(),
        ElementType::F64 => bytes
            .as_chunks::<8>()
            .0
            .iter()
            .map(|b| f64::from_le_bytes(*b))
            .collect(),
        ElementType::I64 => bytes
            .as_chunks::<8>()
            .0
            .iter()
            .map(|b| i64::from_le_bytes(*b) as f64)
            .collect(),
    }
}

/// An endless stream of standard normal numbers.
struct Normal {
    random: ChaCha8Rng,
    spare: Option<f64>,
}

impl Normal {
    fn new(seed: u64, name: &str) -> Self {
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        for byte in name.bytes() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        }
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        key[8..16].copy_from_slice(&hash.to_le_bytes());
        key[16..24].copy_from_slice(b"weights\0");
        Normal {
            random: ChaCha8Rng::from_seed(key),
            spare: None,
        }
    }

    /// Uniform in [-1, 1).
    fn uniform(&mut self) -> f64 {
        (self.random.next_u64() >> 11) as f64 * 2_f64.powi(-52) - 1.0
    }
}

impl Iterator for Normal {
    type Item = f64;

    fn next(&mut self) -> Option<f64> {
        if let Some(value) = self.spare.take() {
            return Some(value);
        }
        loop {
            let (x, y) = (self.uniform(), self.uniform());
            let square = x * x + y * y;
            if square > 0.0 && square < 1.0 {
                let factor = (-2.0 * libm::log(square) / square).sqrt();
                self.spare = Some(y * factor);
                return Some(x * factor);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(name: &str, offset: u64, elements: u64, initial: Initial) -> Parameter {
        Parameter {
            name: name.into(),
            shape: vec![elements],
            offset,
            order: syncbn_abi::Order::Plain,
            trained: true,
            initial,
        }
    }

    #[test]
    fn each_kind_lands_at_its_offset() {
        let data: Vec<u8> = [7.0_f32, 8.0].iter().flat_map(|v| v.to_le_bytes()).collect();
        let tensors = [
            tensor("a", 0, 2, Initial::Data { offset: 0 }),
            tensor("b", 64, 3, Initial::Fill { value: 0.5 }),
        ];
        let mut arena = vec![0; 128];
        fill(&tensors, ElementType::F32, &data, &mut arena).unwrap();
        let found = values(&arena, ElementType::F32);
        assert_eq!(found[..2], [7.0, 8.0]);
        assert_eq!(found[16..19], [0.5; 3]);
        assert_eq!(found[19..], [0.0; 13]);
        let outside = [tensor("c", 120, 3, Initial::Fill { value: 0.0 })];
        assert!(
            fill(&outside, ElementType::F32, &data, &mut arena)
                .unwrap_err()
                .message
                .contains("\"c\"")
        );
    }

    #[test]
    fn kaiming_has_its_deviation_and_depends_on_seed_and_name_only() {
        let draw = |name: &str, seed| {
            let tensors = [tensor(
                name,
                0,
                20_000,
                Initial::KaimingNormal { fan_in: 8, seed },
            )];
            let mut arena = vec![0; 160_000];
            fill(&tensors, ElementType::F64, &[], &mut arena).unwrap();
            values(&arena, ElementType::F64)
        };
        let values = draw("w", 1);
        let mean = values.iter().sum::<f64>() / 2e4;
        let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / 2e4;
        // Standard errors: 0.0035 of the mean, 0.0025 of the variance.
        assert!(mean.abs() < 0.015, "{mean}");
        assert!((variance - 0.25).abs() < 0.01, "{variance}");
        assert_eq!(values, draw("w", 1));
        assert_ne!(values, draw("w", 2));
        assert_ne!(values, draw("v", 1));
    }
}
