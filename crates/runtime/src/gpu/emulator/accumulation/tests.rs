//! Sums as tensor cores make them, by hand, against a plain model, and against what GPUs gave.

use std::path::Path;

use proptest::prelude::*;

use super::*;

/// `c` plus products of pairs, in blocks, in one column.
fn dot(c: f32, pairs: &[(f32, f32)], (products, extra_bits): (usize, u32)) -> f32 {
    let mut a = [[0.0; 16]; 16];
    let mut b = [[0.0; 8]; 16];
    for (i, &(left, right)) in pairs.iter().enumerate() {
        (a[3][i], b[i][5]) = (left, right);
    }
    let mut sums = [[0.0; 8]; 16];
    sums[3][5] = c;
    multiply_add(&a, &b, &mut sums, (products, extra_bits));
    sums[3][5]
}

/// The same, written down from the definition: every step is exact in float64.
fn defined(c: f32, pairs: &[(f32, f32)], (products, extra_bits): (usize, u32)) -> f32 {
    let exponent = |x: f64| (x.to_bits() >> 52 & 0x7ff) as i32 - 1023;
    let mut sum = c;
    for block in pairs.chunks(products) {
        let terms = block.iter().filter(|(a, b)| a * b != 0.0);
        let of_product = |(a, b): &(f32, f32)| exponent(f64::from(*a)) + exponent(f64::from(*b));
        let of_sum = (sum != 0.0).then(|| exponent(f64::from(sum)));
        let Some(largest) = terms.map(of_product).chain(of_sum).max() else {
            continue;
        };
        let unit = 2f64.powi(largest - 23 - extra_bits as i32);
        let cut = |x: f64| (x / unit).trunc() * unit;
        let total: f64 = block
            .iter()
            .map(|(a, b)| cut(f64::from(*a) * f64::from(*b)))
            .sum::<f64>()
            + cut(f64::from(sum));
        // 29 bits of a float64's fraction are more than a float32 has.
        sum = f64::from_bits(total.to_bits() & !0x1fff_ffff) as f32;
    }
    sum
}

#[test]
fn what_lies_below_the_accumulators_last_bit_is_lost() {
    let ones = [(1.0, 1.0); 4];
    let large = 2f32.powi(24);
    assert_eq!(dot(large, &ones, (4, 0)), large);
    assert_eq!(dot(-large, &ones, (4, 0)), -large);
    // One more bit keeps each of them.
    assert_eq!(dot(large, &ones, (4, 1)), large + 4.0);
    // Blocks of one lose it again.
    assert_eq!(dot(large, &ones, (1, 1)), large);
}

#[test]
fn sums_are_cut_off_towards_zero() {
    let ulp = f32::EPSILON;
    for sign in [1.0, -1.0] {
        let most_of_a_bit = [(sign * ulp / 2.0, 1.0), (sign * ulp / 4.0, 1.0)];
        assert_eq!(dot(sign, &most_of_a_bit, (4, 2)), sign);
        assert_eq!(defined(sign, &most_of_a_bit, (4, 2)), sign);
    }
}

#[test]
fn the_largest_exponent_is_that_of_factors() {
    // 1.5 * 1.5 has exponent 1, but counts as 0, so that the smallest bit of 1 stays.
    let pairs = [(1.5, 1.5), (2f32.powi(-23), 1.0)];
    assert_eq!(dot(0.0, &pairs[..], (4, 0)), defined(0.0, &pairs, (4, 0)));
    assert_eq!(dot(-2.25, &pairs, (4, 0)), 0.0, "the accumulator's exponent is 1");
    assert_eq!(dot(-1.25, &pairs, (4, 0)), 1.0 + 2f32.powi(-23));
}

#[test]
fn infinity_nan_and_overflow_pass_through() {
    let inf = f32::INFINITY;
    assert_eq!(dot(1.0, &[(inf, 2.0)], (4, 0)), inf);
    assert_eq!(dot(1.0, &[(-inf, 2.0), (1.0, 1.0)], (4, 0)), -inf);
    assert!(dot(1.0, &[(inf, 0.0)], (4, 0)).is_nan());
    assert!(dot(f32::NAN, &[(1.0, 1.0)], (4, 0)).is_nan());
    assert_eq!(dot(0.0, &[(2f32.powi(100), 2f32.powi(100))], (4, 0)), inf);
}

fn tf32() -> impl Strategy<Value = f32> {
    let bits = (any::<bool>(), 97u32..157, 0u32..1024).prop_map(|(sign, exponent, fraction)| {
        f32::from_bits(u32::from(sign) << 31 | exponent << 23 | fraction << 13)
    });
    prop_oneof![9 => bits, 1 => Just(0.0)]
}

proptest! {
    #[test]
    fn every_sum_is_as_defined(
        c in prop_oneof![any::<f32>().prop_filter("finite", |c| c.is_finite() && c.abs() < 1e30), Just(0.0)],
        pairs in prop::collection::vec((tf32(), tf32()), 1..17),
        products in prop::sample::select(vec![4usize, 8, 16]),
        extra_bits in 0u32..=3,
    ) {
        prop_assume!(c == 0.0 || c.abs() > 1e-30);
        let how = (products, extra_bits);
        prop_assert_eq!(dot(c, &pairs, how), defined(c, &pairs, how));
    }
}

#[test]
fn names_have_their_parameters() {
    assert_eq!(Accumulation::parse("least"), Some(LEAST));
    assert_eq!(Accumulation::parse("sm_90"), Some(SM_90_MMA));
    let three = Accumulation {
        extra_bits: 3,
        ..SM_80_MMA
    };
    assert_eq!(Accumulation::parse("sm_80,3"), Some(three));
    for wrong in ["", "sm_70", "sm_80,4", "sm_80,x", "least,"] {
        assert_eq!(Accumulation::parse(wrong), None, "{wrong}");
    }
}

/// Where files of published results lie, `GPU.FORMAT.X` with X of a, b, c, d: rows of numbers as bits, hexadecimal or
/// binary.
const RESULTS: &str = "SYNCBN_TENSOR_CORE_RESULTS";

#[test]
#[allow(clippy::print_stderr)]
fn gpus_gave_these_sums() {
    let Some(folder) = std::env::var_os(RESULTS) else {
        eprintln!("{RESULTS} names no folder: nothing is compared with results of GPUs");
        return;
    };
    let read = |name: &str| -> Vec<Vec<f32>> {
        let text = std::fs::read_to_string(Path::new(&folder).join(name)).unwrap();
        let number = |word: &str| u32::from_str_radix(word, if word.len() == 32 { 2 } else { 16 }).unwrap();
        text.lines()
            .map(|line| {
                line.split_whitespace()
                    .map(|word| f32::from_bits(number(word)))
                    .collect()
            })
            .collect()
    };
    for (gpu, how) in [("A100", SM_80_MMA), ("H100", SM_90_MMA), ("H200", SM_90_MMA)] {
        for (format, products) in [("tf32", how.tf32), ("bf16", how.bf16)] {
            let [a, b, c, d] = ["a", "b", "c", "d"].map(|part| read(&format!("{gpu}.{format}.{part}")));
            assert!(a.len() > 1000);
            for row in 0..a.len() {
                let pairs: Vec<_> = a[row].iter().copied().zip(b[row].iter().copied()).collect();
                let found = dot(c[row][0], &pairs, (products, how.extra_bits));
                assert_eq!(found.to_bits(), d[row][0].to_bits(), "{gpu} {format} {row}");
            }
            eprintln!("{gpu} {format}: {} sums are equal to the bit", a.len());
        }
    }
}
