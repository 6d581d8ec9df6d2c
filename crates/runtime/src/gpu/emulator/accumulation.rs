//! How tensor cores add products into an accumulator, which is not IEEE arithmetic.
//!
//! A matrix instruction takes its reduced index in blocks. The accumulator and the exact products of a block are aligned
//! to the largest exponent among them (a product counts with the sum of its factors' exponents, whether or not its
//! significand is 2 or more), cut off `extra_bits` bits below the last bit of a float32 of that exponent, added without
//! error, and the sum is cut off to float32. So each block loses up to a bit of the accumulator, always towards zero,
//! where rounding to nearest loses half a bit either way: sums over many blocks drift.
//!
//! The model and the parameters of sm_80 and sm_90 are those of Khattak and Mikaitis, "Accurate Models of NVIDIA Tensor
//! Cores" (arXiv 2512.07004), who found them to agree with an A100, an H100 and an H200 to the bit; earlier Fasi et al.
//! (PeerJ Computer Science 7:e330) found the truncation. docs/measurements.md says how this file was compared with the
//! results of GPUs that they published.

use crate::error::{Error, Result};

/// Chooses an [`Accumulation`] by name: `least` (the default), `sm_80` or `sm_90`, each perhaps with another number of
/// extra bits, such as `sm_90,2`.
pub const ACCUMULATION_VARIABLE: &str = "SYNCBN_EMULATOR_ACCUMULATION";

/// No known GPU keeps more extra bits; with these a cut-off term has 28 bits.
const MOST_EXTRA_BITS: u32 = 3;

/// How the products of a matrix instruction are added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accumulation {
    /// Products of tf32 numbers in a block.
    pub tf32: usize,
    /// Products of bf16 numbers in a block.
    pub bf16: usize,
    /// Bits that are kept below the last one of the block's largest exponent.
    pub extra_bits: u32,
}

/// `mma.sync` on sm_80 (A100).
const SM_80_MMA: Accumulation = Accumulation {
    tf32: 4,
    bf16: 8,
    extra_bits: 1,
};

/// `mma.sync` on sm_90 (H100, H200). `wgmma` is assumed to add alike: the cited models were compared with `mma` alone.
const SM_90_MMA: Accumulation = Accumulation {
    tf32: 8,
    bf16: 16,
    extra_bits: 2,
};

/// The smallest blocks and no extra bits: no GPU from sm_80 on is known to lose more. What holds its bounds here is not
/// in need of knowing the GPU.
const LEAST: Accumulation = Accumulation {
    extra_bits: 0,
    ..SM_80_MMA
};

impl Accumulation {
    /// What [`ACCUMULATION_VARIABLE`] says.
    pub fn of_environment() -> Result<Self> {
        match std::env::var(ACCUMULATION_VARIABLE) {
            Err(_) => Ok(LEAST),
            Ok(text) => Self::parse(&text).ok_or_else(|| {
                Error::user(format!("{ACCUMULATION_VARIABLE} is \"{text}\"")).help(format!(
                    "give least, sm_80 or sm_90, perhaps with a number of extra bits up to {MOST_EXTRA_BITS}, such as sm_90,2"
                ))
            }),
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let (name, extra_bits) = match text.split_once(',') {
            Some((name, bits)) => (name, Some(bits.parse().ok().filter(|&b| b <= MOST_EXTRA_BITS)?)),
            None => (text, None),
        };
        let named = match name {
            "least" => LEAST,
            "sm_80" => SM_80_MMA,
            "sm_90" => SM_90_MMA,
            _ => return None,
        };
        Some(Accumulation {
            extra_bits: extra_bits.unwrap_or(named.extra_bits),
            ..named
        })
    }
}

impl Default for Accumulation {
    fn default() -> Self {
        LEAST
    }
}

/// Columns of an instruction.
const COLUMNS: usize = 8;
/// Fraction bits of the significand of a tf32 number, of which a bf16 number is one too.
const FRACTION: u32 = 10;
/// Fraction bits of a float32.
const SINGLE: u32 = 23;
/// The exponent of 0: below that of every product.
const ZERO: i32 = -1000;
/// The exponent of infinity and NaN.
const SPECIAL: i32 = 128;

/// A float32 as a significand and an exponent: `significand * 2^(exponent - 23)`.
#[inline(always)]
fn split(x: f32) -> (i32, i32) {
    let bits = x.to_bits() as i32;
    let (field, fraction) = (bits >> SINGLE & 0xff, bits & 0x7f_ffff);
    let significand = if field == 0 {
        fraction
    } else {
        fraction | 1 << SINGLE
    };
    let exponent = if field == 0 { -126 } else { field - 127 };
    let exponent = if significand == 0 { ZERO } else { exponent };
    (if bits < 0 { -significand } else { significand }, exponent)
}

/// The sum `sum * 2^(exponent - 23 - extra_bits)`, cut off to float32.
#[inline(always)]
fn join(sum: i64, exponent: i32, extra_bits: u32) -> f32 {
    // Every factor and the product are exact in float64: exponents of products are above -300.
    let scale = f64::from_bits(((1023 + exponent - (SINGLE + extra_bits) as i32) as u64) << 52);
    let exact = sum as f64 * scale;
    let nearest = exact as f32;
    let above = f64::from(nearest).abs() > exact.abs() && nearest.is_finite();
    f32::from_bits(nearest.to_bits() - u32::from(above))
}

/// `c + a b`, `a` of 16xK and `b` of Kx8 tf32 or bf16 numbers, in blocks of `products`, row by row.
pub(super) fn multiply_add<const K: usize>(
    a: &[[f32; K]; 16],
    b: &[[f32; COLUMNS]; K],
    c: &mut [[f32; COLUMNS]; 16],
    (products, extra_bits): (usize, u32),
) {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2.
        return unsafe { with_avx2(a, b, c, (products, extra_bits)) };
    }
    plain(a, b, c, (products, extra_bits));
}

/// [`plain`], whose loops over columns become vectors.
///
/// # Safety
/// The processor has AVX2.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn with_avx2<const K: usize>(
    a: &[[f32; K]; 16],
    b: &[[f32; COLUMNS]; K],
    c: &mut [[f32; COLUMNS]; 16],
    how: (usize, u32),
) {
    plain(a, b, c, how);
}

#[inline(always)]
fn plain<const K: usize>(
    a: &[[f32; K]; 16],
    b: &[[f32; COLUMNS]; K],
    c: &mut [[f32; COLUMNS]; 16],
    (products, extra_bits): (usize, u32),
) {
    let narrow = |x: f32| {
        let (significand, exponent) = split(x);
        (significand >> (SINGLE - FRACTION), exponent)
    };
    let right = b.map(|row| row.map(narrow));
    let special = |(_, exponent): &(i32, i32)| *exponent == SPECIAL;
    let wild = right.iter().flatten().any(special);
    for (left, sums) in a.iter().zip(c) {
        let left = left.map(narrow);
        if wild || left.iter().any(special) || sums.iter().any(|sum| !sum.is_finite()) {
            in_floats(&left, &right, sums);
            continue;
        }
        for (left, right) in left.chunks(products).zip(right.chunks(products)) {
            add_block(left, right, sums, extra_bits);
        }
    }
}

/// Adds the products of a block in every column.
#[inline(always)]
fn add_block(
    left: &[(i32, i32)],
    right: &[[(i32, i32); COLUMNS]],
    sums: &mut [f32; COLUMNS],
    extra_bits: u32,
) {
    let start = sums.map(split);
    let mut largest = start.map(|(_, exponent)| exponent);
    for ((_, exponent), row) in left.iter().zip(right) {
        for (largest, (_, other)) in largest.iter_mut().zip(row) {
            *largest = (*largest).max(exponent + other);
        }
    }
    let mut totals = [0i64; COLUMNS];
    for ((total, (significand, exponent)), largest) in totals.iter_mut().zip(start).zip(largest) {
        let magnitude = significand.unsigned_abs() << extra_bits;
        *total = cut(magnitude, largest - exponent, significand < 0);
    }
    for (&(significand, exponent), row) in left.iter().zip(right) {
        for ((total, &(other, other_exponent)), largest) in totals.iter_mut().zip(row).zip(largest) {
            let product = significand * other;
            let magnitude = product.unsigned_abs() << (SINGLE - 2 * FRACTION + extra_bits);
            *total += cut(magnitude, largest - exponent - other_exponent, product < 0);
        }
    }
    for ((sum, total), largest) in sums.iter_mut().zip(totals).zip(largest) {
        // Where there is a term that is not 0, the largest exponent is one of such a term.
        *sum = if total == 0 {
            0.0
        } else {
            join(total, largest, extra_bits)
        };
    }
}

/// A term, cut off where one whose exponent is larger by `distance` ends.
#[inline(always)]
fn cut(magnitude: u32, distance: i32, negative: bool) -> i64 {
    let magnitude = i64::from(magnitude >> distance.min(31));
    if negative { -magnitude } else { magnitude }
}

/// Where infinity or NaN takes part: what floats make of it.
#[cold]
fn in_floats<const K: usize>(
    left: &[(i32, i32); K],
    right: &[[(i32, i32); COLUMNS]; K],
    sums: &mut [f32; COLUMNS],
) {
    let value = |(significand, exponent): (i32, i32)| match (exponent, significand.abs()) {
        (SPECIAL, magnitude) if magnitude == 1 << FRACTION => f32::INFINITY * significand.signum() as f32,
        (SPECIAL, _) => f32::NAN,
        (ZERO, _) => 0.0,
        _ => significand as f32 * 2f32.powi(exponent - FRACTION as i32),
    };
    for (&factor, row) in left.iter().zip(right) {
        for (sum, &other) in sums.iter_mut().zip(row) {
            *sum += value(factor) * value(other);
        }
    }
}

#[cfg(test)]
mod tests;
