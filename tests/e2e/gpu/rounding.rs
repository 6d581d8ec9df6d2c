//! What rounding leaves of a network: `tests/fixtures/rounding/deviation.csv`, which
//! `tests/rounding/rounding_deviation.py` computes, and the bounds that follow.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use syncbn_ir::Array;

/// Bound of every array in f32, and of arrays that rounding moves less in the other precisions.
const F32_LIMIT: f64 = 1e-4;

/// Bounds of outputs, loss and statistics of the first step.
const FIRST_STEP: [(&str, f64); 2] = [("tf32", 2e-3), ("bf16", 3e-2)];

/// What the other arrays may deviate by, in parts of the deviation of the reference evaluation that rounds.
const FACTOR: f64 = 3.0;

/// Precision, network and array of the first step that are held to [`FACTOR`] of the reference evaluation's deviation
/// as later steps are, since that evaluation exceeds the bound itself. The last layers of this network normalise
/// few values a channel, and ReLU follows.
const EXCEPTIONS: [(&str, &str, &str); 2] = [
    ("tf32", "resnet18_narrow", "train_logits"),
    ("bf16", "resnet18_narrow", "train_logits"),
];

/// The bounds of a network's arrays in a precision.
pub struct Bounds {
    network: &'static str,
    precision: &'static str,
    /// Deviations by array, such as `grad/fc.weight`, and by group, such as `grad`; None in f32.
    deviations: Option<BTreeMap<String, f64>>,
}

impl Bounds {
    pub fn of(network: &'static str, precision: &'static str) -> Bounds {
        let deviations = (precision != "f32").then(|| deviations(network, precision));
        Bounds {
            network,
            precision,
            deviations,
        }
    }

    /// The bound of an array of the references; `loss1` is the loss of the first step.
    pub fn array(&self, key: &str) -> f64 {
        let Some(deviations) = &self.deviations else {
            return F32_LIMIT;
        };
        let first_step =
            ["eval_before", "train_logits", "loss1"].contains(&key) || key.starts_with("stats1/");
        if first_step && !EXCEPTIONS.contains(&(self.precision, self.network, key)) {
            return first_step_limit(self.precision);
        }
        deviations
            .get(key)
            .map_or_else(|| panic!("{key} is not listed"), |d| F32_LIMIT.max(FACTOR * d))
    }

    /// The least and the greatest [`spread`] of a group of arrays: gradients show that the precision rounds.
    pub fn group(&self, group: &str) -> RangeInclusive<f64> {
        let Some(deviations) = &self.deviations else {
            return 0.0..=F32_LIMIT;
        };
        let least = if group == "grad" { F32_LIMIT } else { 0.0 };
        least..=F32_LIMIT.max(FACTOR * deviations[group])
    }
}

fn first_step_limit(precision: &str) -> f64 {
    let limit = FIRST_STEP.iter().find(|(name, _)| *name == precision);
    limit.unwrap_or_else(|| panic!("{precision} has no bound")).1
}

fn deviations(network: &str, precision: &str) -> BTreeMap<String, f64> {
    let mut lines = include_str!("../../fixtures/rounding/deviation.csv").lines();
    let column = lines
        .next()
        .and_then(|header| header.split(',').position(|title| title == precision))
        .unwrap_or_else(|| panic!("there is no deviation in {precision}"));
    lines
        .map(|line| line.split(',').collect::<Vec<_>>())
        .filter(|row| row[0] == network)
        .map(|row| (row[1].to_string(), row[column].parse().unwrap()))
        .collect()
}

/// The root of the squared errors of all arrays in parts of that of the squared references.
pub fn spread<'a>(pairs: impl Iterator<Item = (&'a Array, &'a Array)>) -> f64 {
    let (mut errors, mut squares) = (0.0, 0.0);
    for (found, reference) in pairs {
        for (f, r) in found.data.iter().zip(&reference.data) {
            errors += (f - r) * (f - r);
            squares += r * r;
        }
    }
    (errors / squares).sqrt()
}

#[test]
fn the_reference_evaluation_exceeds_the_bound_where_the_exceptions_do() {
    for (precision, network, key) in EXCEPTIONS {
        let deviation = deviations(network, precision)[key];
        let limit = first_step_limit(precision);
        assert!(
            deviation > limit,
            "{network} {precision} {key}: {deviation} keeps {limit}"
        );
    }
}

#[test]
fn the_reference_evaluation_keeps_the_bound_elsewhere() {
    for (precision, limit) in FIRST_STEP {
        for network in super::NETWORKS {
            for (key, deviation) in deviations(network, precision) {
                let first =
                    ["eval_before", "train_logits"].contains(&key.as_str()) || key.starts_with("stats1/");
                let listed = EXCEPTIONS.contains(&(precision, network, key.as_str()));
                assert!(
                    !first || listed || deviation < limit,
                    "{network} {precision} {key}: {deviation}"
                );
            }
        }
    }
}

#[test]
fn the_spread_is_over_all_arrays() {
    let array = |v: &[f64]| Array::new(&[v.len()], v.to_vec());
    let (found, reference) = (
        [array(&[4.0, 0.0]), array(&[1.0])],
        [array(&[4.0, 3.0]), array(&[1.0])],
    );
    let expected = 3.0 / 26.0_f64.sqrt();
    assert!((spread(found.iter().zip(&reference)) - expected).abs() < 1e-15);
}
