//! How far PyTorch itself is from the references of the BatchNorm modes: `tests/fixtures/modes/pytorch_deviation.csv`,
//! which `pytorch_deviation.py` measures.

use std::collections::BTreeMap;

/// A listed exception's bound in parts of PyTorch's own error.
const FACTOR: f64 = 3.0;

/// PyTorch's errors of one network in one precision, by `CASE/ARRAY`, where they exceed a third of the bound.
pub struct Deviation(BTreeMap<String, f64>);

impl Deviation {
    /// Reads the table for `float32` or `float64`.
    pub fn of(network: &str, precision: &str) -> Deviation {
        let table = include_str!("../fixtures/modes/pytorch_deviation.csv");
        let prefix = format!("{precision},{network},\"");
        let rows = table.lines().filter_map(|line| line.strip_prefix(&prefix));
        let row = |row: &str| {
            let (case, rest) = row.split_once("\",").unwrap();
            let (array, error) = rest.split_once(',').unwrap();
            (format!("{case}/{array}"), error.parse().unwrap())
        };
        Deviation(rows.map(row).collect())
    }

    /// The bound of an array of a listed exception: three times PyTorch's error where that is more than the usual
    /// bound.
    pub fn bound(&self, key: &str, usual: f64) -> f64 {
        self.0.get(key).map_or(usual, |error| usual.max(FACTOR * error))
    }
}
