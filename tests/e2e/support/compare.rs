//! The rule by which an array matches its reference.

use syncbn_ir::Array;

/// The largest error in parts of the reference's largest magnitude (at least 1e-3); infinite if shapes differ
/// or a value is not finite.
pub fn error(found: &Array, reference: &Array) -> f64 {
    let mut values = found.data.iter().chain(&reference.data);
    if found.dims != reference.dims || values.any(|v| !v.is_finite()) {
        return f64::INFINITY;
    }
    let pairs = found.data.iter().zip(&reference.data);
    let largest = pairs.map(|(f, r)| (f - r).abs()).fold(0.0, f64::max);
    let scale = reference.data.iter().map(|v| v.abs()).fold(1e-3, f64::max);
    largest / scale
}

/// Collects comparisons of one test, so that a failure lists everything that is wrong.
#[derive(Default)]
pub struct Comparison {
    failures: Vec<String>,
}

impl Comparison {
    /// Compares one array.
    pub fn array(&mut self, name: &str, found: Option<&Array>, reference: &Array, tolerance: f64) {
        let Some(found) = found else {
            self.failures.push(format!("{name} is missing"));
            return;
        };
        let error = error(found, reference);
        if error > tolerance {
            let shapes = if found.dims == reference.dims {
                String::new()
            } else {
                format!(", shape {:?} instead of {:?}", found.dims, reference.dims)
            };
            self.failures.push(format!(
                "{name}: error {error:.2e} exceeds {tolerance:.0e}{shapes}"
            ));
        }
    }

    /// Notes something else that is wrong.
    pub fn check(&mut self, holds: bool, message: impl FnOnce() -> String) {
        if !holds {
            self.failures.push(message());
        }
    }

    /// Fails the test if anything was wrong.
    #[track_caller]
    pub fn finish(self, what: &str) {
        assert!(
            self.failures.is_empty(),
            "{what}:\n  {}",
            self.failures.join("\n  ")
        );
    }
}

#[test]
fn the_rule_is_relative_with_a_floor() {
    let array = |v: &[f64]| Array::new(&[v.len()], v.to_vec());
    assert_eq!(error(&array(&[1.0, 10.5]), &array(&[1.0, 10.0])), 0.05);
    assert_eq!(error(&array(&[1e-3]), &array(&[0.0])), 1.0);
    assert_eq!(error(&array(&[f64::NAN]), &array(&[0.0])), f64::INFINITY);
    assert_eq!(error(&array(&[0.0, 0.0]), &array(&[0.0])), f64::INFINITY);
}
