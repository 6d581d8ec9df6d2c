//! Validation: loss and accuracy of a data set under the current weights, computed in float64.

use std::sync::Arc;

use syncbn_abi::{Model, Target};

use crate::{
    error::{Error, Result},
    execution::Execution,
    files::data::Dataset,
    initial::values,
    sizes::sample_bytes,
};

/// What a validation found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Figures {
    /// Mean loss.
    pub loss: f64,
    /// Share of labels that the largest output hits; for class targets.
    pub accuracy: Option<f64>,
}

/// One sample's sums.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Sums {
    loss: f64,
    hits: u64,
    /// What loss and hits are counted over: labels, or values.
    count: u64,
}

impl Sums {
    fn to_bytes(self) -> [u8; 24] {
        let mut bytes = [0; 24];
        bytes[..8].copy_from_slice(&self.loss.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.hits.to_le_bytes());
        bytes[16..].copy_from_slice(&self.count.to_le_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8; 24]) -> Self {
        let (words, _) = bytes.as_chunks::<8>();
        Sums {
            loss: f64::from_le_bytes(words[0]),
            hits: u64::from_le_bytes(words[1]),
            count: u64::from_le_bytes(words[2]),
        }
    }
}

/// Runs inference on `data` with rank 0's statistics and compares it with the target. The sums are taken in
/// the order of the samples, so that they do not depend on the number of ranks. None on processes that do not
/// lead. Called by all.
pub fn run(execution: &dyn Execution, data: &Arc<Dataset>, batch: u64) -> Result<Option<Figures>> {
    execution.prepare_inference()?;
    let model = execution.model().clone();
    let classes = matches!(model.target, Some(Target::Classes { .. }));
    let shown = Arc::clone(data);
    let consume = move |outputs: &[&[u8]], samples: &[u64]| {
        let sums = samples.iter().enumerate();
        let sums = sums.filter_map(|(place, &sample)| compare(&model, outputs, place, &shown, sample));
        sums.flat_map(Sums::to_bytes).collect()
    };
    let per_batch = execution.infer(data, batch, Some(Arc::new(consume)))?;
    if !execution.leads() {
        return Ok(None);
    }
    let mut total = Sums::default();
    for sums in per_batch.iter().flat_map(|bytes| bytes.as_chunks().0) {
        let sums = Sums::from_bytes(sums);
        total.loss += sums.loss;
        total.hits += sums.hits;
        total.count += sums.count;
    }
    if total.count == 0 {
        return Err(Error::internal(
            "validation found no output to compare with the target",
        ));
    }
    let count = total.count as f64;
    Ok(Some(Figures {
        loss: total.loss / count,
        accuracy: classes.then_some(total.hits as f64 / count),
    }))
}

/// Compares sample `sample`, which is the `place`-th one in `outputs`.
fn compare(model: &Model, outputs: &[&[u8]], place: usize, data: &Dataset, sample: u64) -> Option<Sums> {
    let index = model.loss_output();
    let output = model.outputs.get(index)?;
    let size = sample_bytes(output) as usize;
    let found = outputs.get(index)?.get(place * size..(place + 1) * size)?;
    let found = values(found, output.element_type);
    let target = data.target(model)?.sample(sample);
    Some(match model.target.as_ref()? {
        Target::Classes { classes, .. } => {
            let labels = target
                .as_chunks::<8>()
                .0
                .iter()
                .map(|label| i64::from_le_bytes(*label) as usize);
            cross_entropy(&found, labels, *classes as usize)
        }
        Target::Values { .. } => squared_error(&found, &values(target, model.element_type)),
    })
}

/// `found` is `[classes, positions]` of one sample.
fn cross_entropy(found: &[f64], labels: impl Iterator<Item = usize>, classes: usize) -> Sums {
    let positions = found.len() / classes.max(1);
    let mut sums = Sums::default();
    for (position, label) in labels.enumerate() {
        let value = |class: usize| found[class * positions + position];
        // A comparison with NaN is false, so an output with NaN hits nothing but through class 0.
        let best = (1..classes).fold(
            0,
            |best, class| if value(class) > value(best) { class } else { best },
        );
        let largest = (0..classes).map(value).fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = (0..classes).map(|class| (value(class) - largest).exp()).sum();
        sums.loss += largest + sum.ln() - value(label);
        sums.hits += u64::from(best == label && value(label).is_finite());
        sums.count += 1;
    }
    sums
}

fn squared_error(found: &[f64], target: &[f64]) -> Sums {
    let loss = found
        .iter()
        .zip(target)
        .map(|(found, target)| (found - target).powi(2))
        .sum();
    Sums {
        loss,
        hits: 0,
        count: found.len() as u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cross_entropy_of_pixels() {
        // Two positions, three classes: logits (0, 0, ln 2) and (ln 3, 0, 0).
        let found = [0.0, 3_f64.ln(), 0.0, 0.0, 2_f64.ln(), 0.0];
        let sums = cross_entropy(&found, [2, 1].into_iter(), 3);
        assert!((sums.loss - (2_f64.ln() + 5_f64.ln())).abs() < 1e-15);
        assert_eq!((sums.hits, sums.count), (1, 2));
        let shifted = found.map(|value| value + 1e4);
        assert!((cross_entropy(&shifted, [2, 1].into_iter(), 3).loss - sums.loss).abs() < 1e-10);
    }

    #[test]
    fn outputs_that_are_not_numbers_and_squares() {
        let nan = cross_entropy(&[f64::NAN, f64::NAN], [0].into_iter(), 2);
        assert!(nan.loss.is_nan() && nan.hits == 0);
        assert_eq!(
            squared_error(&[1.0, 2.0], &[0.0, 4.0]),
            Sums {
                loss: 5.0,
                hits: 0,
                count: 2
            }
        );
    }
}
