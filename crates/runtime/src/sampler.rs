//! Which samples each rank works on in each step: a pure function of seed, epoch, step and split.
//!
//! An epoch's permutation depends on seed and epoch only. A step takes the next samples of it, as many as
//! all ranks together hold, and rank r the next contiguous ones of these. A short last batch is dealt one
//! sample at a time to the ranks in turn, where a rank that holds its full count is passed over; with equal
//! counts that gives the first ranks one more than the rest.

use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};

use crate::error::{Error, Result};

/// The split of a data set into steps and ranks.
#[derive(Debug, Clone)]
pub struct Sampler {
    samples: u64,
    /// Samples of each rank in a full step.
    full: Vec<u64>,
    /// None keeps the file's order.
    seed: Option<u64>,
    steps_per_epoch: u64,
}

/// One step's share of the samples.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// Index of the step's first sample in the epoch's order.
    pub begin: u64,
    /// Samples of each rank.
    pub counts: Vec<u64>,
}

impl Share {
    /// Samples of all ranks.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Where rank `rank`'s samples lie in the epoch's order.
    pub fn range(&self, rank: usize) -> std::ops::Range<usize> {
        let begin = self.begin + self.counts[..rank].iter().sum::<u64>();
        begin as usize..(begin + self.counts[rank]) as usize
    }
}

impl Sampler {
    /// Splits `samples` into steps of `full` samples for each rank.
    pub fn new(samples: u64, full: Vec<u64>, seed: Option<u64>, drop_last: bool) -> Result<Self> {
        let total: u64 = full.iter().sum();
        if total == 0 {
            return Err(Error::user("--rank-batches gives no rank any samples")
                .help("give at least one rank a count above 0"));
        }
        let steps_per_epoch = if drop_last {
            samples / total
        } else {
            samples.div_ceil(total)
        };
        if steps_per_epoch == 0 {
            return Err(Error::user(format!(
                "--drop-last leaves no step: {samples} samples are fewer than one batch of {total}"
            ))
            .help("use a smaller --batch, fewer --ranks, or leave --drop-last away"));
        }
        Ok(Sampler {
            samples,
            full,
            seed,
            steps_per_epoch,
        })
    }

    /// Steps of one epoch.
    pub fn steps_per_epoch(&self) -> u64 {
        self.steps_per_epoch
    }

    /// The share of step `step` (from 0) of any epoch.
    pub fn share(&self, step: u64) -> Share {
        let total: u64 = self.full.iter().sum();
        let begin = step * total;
        let mut left = self.samples.saturating_sub(begin).min(total);
        if left == total {
            return Share {
                begin,
                counts: self.full.clone(),
            };
        }
        let mut counts = vec![0; self.full.len()];
        while left > 0 {
            for (count, full) in counts.iter_mut().zip(&self.full) {
                if left > 0 && *count < *full {
                    *count += 1;
                    left -= 1;
                }
            }
        }
        Share { begin, counts }
    }

    /// The order of the samples in `epoch` (from 0).
    pub fn order(&self, epoch: u64) -> Vec<u64> {
        let mut order: Vec<u64> = (0..self.samples).collect();
        if let Some(seed) = self.seed {
            let mut key = [0; 32];
            key[..8].copy_from_slice(&seed.to_le_bytes());
            key[8..16].copy_from_slice(&epoch.to_le_bytes());
            key[16..24].copy_from_slice(b"samples\0");
            let mut random = ChaCha8Rng::from_seed(key);
            for last in (1..order.len()).rev() {
                order.swap(last, below(&mut random, last as u64 + 1) as usize);
            }
        }
        order
    }
}

/// A uniform number below `bound`, by rejection.
pub fn below(random: &mut ChaCha8Rng, bound: u64) -> u64 {
    let rest = u64::MAX - u64::MAX % bound;
    loop {
        let drawn = random.next_u64();
        if drawn < rest {
            return drawn % bound;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn visited(sampler: &Sampler, epoch: u64) -> Vec<Vec<u64>> {
        let order = sampler.order(epoch);
        let step = |step| {
            let share = sampler.share(step);
            (0..share.counts.len())
                .flat_map(|rank| order[share.range(rank)].to_vec())
                .collect()
        };
        (0..sampler.steps_per_epoch()).map(step).collect()
    }

    proptest! {
        #[test]
        fn an_epoch_visits_every_sample_once(
            samples in 1_u64..200,
            full in proptest::collection::vec(0_u64..9, 1..6),
            seed in proptest::option::of(any::<u64>()),
            epoch in 0_u64..5,
        ) {
            prop_assume!(full.iter().sum::<u64>() > 0);
            let sampler = Sampler::new(samples, full.clone(), seed, false).unwrap();
            for step in 0..sampler.steps_per_epoch() {
                let counts = sampler.share(step).counts;
                prop_assert!(counts.iter().zip(&full).all(|(count, full)| count <= full));
            }
            let mut all: Vec<u64> = visited(&sampler, epoch).concat();
            all.sort_unstable();
            prop_assert_eq!(all, (0..samples).collect::<Vec<_>>());
        }

        #[test]
        fn all_splits_of_a_batch_see_the_same_samples(
            samples in 1_u64..100, seed in any::<u64>(), ranks in 1_u64..5, batch in 1_u64..5,
        ) {
            let many = Sampler::new(samples, vec![batch; ranks as usize], Some(seed), false).unwrap();
            let one = Sampler::new(samples, vec![batch * ranks], Some(seed), false).unwrap();
            prop_assert_eq!(visited(&many, 2), visited(&one, 2));
        }
    }

    #[test]
    fn a_short_batch_gives_the_first_ranks_more() {
        let counts = |samples, full: &[u64]| {
            let sampler = Sampler::new(samples, full.to_vec(), None, false).unwrap();
            sampler.share(sampler.steps_per_epoch() - 1).counts
        };
        assert_eq!(counts(22, &[4, 4, 4, 4]), [2, 2, 1, 1]);
        assert_eq!(counts(18, &[4, 4, 4, 4]), [1, 1, 0, 0]);
        assert_eq!(counts(14, &[5, 3, 0]), [3, 3, 0]);
        assert_eq!(counts(15, &[5, 3, 0]), [4, 3, 0]);
    }

    #[test]
    fn shuffling_depends_on_seed_and_epoch() {
        let order = |seed, epoch| Sampler::new(50, vec![8], seed, false).unwrap().order(epoch);
        assert_eq!(order(None, 3), (0..50).collect::<Vec<_>>());
        assert_eq!(order(Some(1), 0), order(Some(1), 0));
        assert_ne!(order(Some(1), 0), order(Some(1), 1));
        assert_ne!(order(Some(1), 0), order(Some(2), 0));
    }

    #[test]
    fn drop_last_drops_the_short_batch_only() {
        assert_eq!(
            Sampler::new(22, vec![4; 4], None, true)
                .unwrap()
                .steps_per_epoch(),
            1
        );
        assert_eq!(
            Sampler::new(32, vec![4; 4], None, true)
                .unwrap()
                .steps_per_epoch(),
            2
        );
        assert!(
            Sampler::new(15, vec![4; 4], None, true)
                .unwrap_err()
                .message
                .contains("--drop-last")
        );
        assert!(Sampler::new(15, vec![0; 4], None, false).is_err());
    }
}
