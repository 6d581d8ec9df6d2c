//! A 3x3 convolution of stride 2 as Winograd's F(4, 2) and F(4, 1) of its even and odd rows and columns: 81 products for 16
//! results, instead of 144.
//!
//! It takes all directions of such convolutions of images with padding 1 and at least 16 input and output channels. It leaves
//! alone what [`super::winograd`] does, and other paddings, whose phases are others.

use syncbn_ir::Schedule;

use super::cost::Cost;
use super::winograd::{Algorithm, fits};
use super::{Candidate, Problem};

/// The candidate.
pub struct Polyphase;

/// Tiles of 9x9 elements of `x`, in four phases.
const PHASES: Algorithm = Algorithm {
    values: 81,
    input: 250.0,
    output: 200.0,
    weight: 110.0,
};

impl Candidate for Polyphase {
    fn accepts(&self, problem: &Problem) -> Option<Schedule> {
        let conv = problem.convolution()?;
        let fits = fits(conv, 2) && conv.window.pads.iter().all(|&pad| pad == 1);
        fits.then(|| Schedule::Polyphase(PHASES.blocking(problem, conv)))
    }

    fn cost(&self, problem: &Problem, schedule: &Schedule) -> Option<Cost> {
        let (conv, Schedule::Polyphase(s)) = (problem.convolution()?, schedule) else {
            return None;
        };
        Some(PHASES.cost(problem, conv, s))
    }

    /// Its transforms are shorter than those of stride 1 and round less.
    fn least_gain(&self) -> Option<f64> {
        Some(1.1)
    }
}
