//! What a step enqueues, recorded as its host function is made: so a report of it is of what the executable does.

use super::Lowering;
pub use super::traffic::Traffic;
use crate::emit::{Blocks, Cost, Work, ceil};

/// A launch that an operator needs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Launch {
    /// What there is to do.
    pub work: Work,
    /// The blocks that do it.
    pub blocks: Blocks,
    /// Index of its kernel's description.
    pub index: i64,
    /// What it moves and computes.
    pub traffic: Traffic,
    /// What its lowering knows of that.
    pub cost: Cost,
}

/// What an entry point of a program enqueues on one rank at the largest batch, in order.
#[derive(Debug, Clone, PartialEq)]
pub struct EntryPoint {
    /// Symbol of the entry point.
    pub function: String,
    /// What it enqueues.
    pub enqueued: Vec<Enqueued>,
}

/// What is enqueued.
#[derive(Debug, Clone, PartialEq)]
pub enum Enqueued {
    /// A kernel.
    Launch(Box<Launched>),
    /// A sum over ranks, which one rank leaves out.
    AllReduce {
        /// Name of its node.
        node: String,
        /// Whether it sums gradients, on their own stream.
        gradients: bool,
        /// Bytes that it sums.
        bytes: u64,
    },
}

/// A launch of a kernel.
#[derive(Debug, Clone, PartialEq)]
pub struct Launched {
    /// Name of the node, "loss" for the copy of the loss.
    pub node: String,
    /// Name of the operator.
    pub op: String,
    /// Index of the kernel's description among [`super::Kernels::kernels`].
    pub kernel: usize,
    /// Blocks along x and z.
    pub grid: [u64; 2],
    /// The multiprocessor holds at least so many blocks by the kernel's registers, where that is bounded.
    pub resident: Option<u32>,
    /// What it moves and computes.
    pub traffic: Traffic,
    /// What its lowering knows of that.
    pub cost: Cost,
}

/// Blocks along x and z for `n` samples, as the host function finds them.
fn grid(work: Work, blocks: &Blocks, n: i64) -> [u64; 2] {
    let work = work.fixed.max(work.per_sample * n);
    let across = ceil(work, blocks.takes) * blocks.columns;
    [across, blocks.planes].map(|count| count as u64)
}

impl Lowering<'_> {
    /// What was recorded is what this entry point enqueues.
    pub(super) fn end_entry_point(&mut self, name: &str) {
        self.lowered.entry_points.push(EntryPoint {
            function: name.to_string(),
            enqueued: std::mem::take(&mut self.enqueued),
        });
    }

    /// Records a launch for a node.
    pub(super) fn record(&mut self, launch: &Launch, node: &str, op: &str) {
        self.enqueued.push(Enqueued::Launch(Box::new(Launched {
            node: node.to_string(),
            op: op.to_string(),
            kernel: launch.index as usize,
            grid: grid(launch.work, &launch.blocks, self.batch_bound),
            resident: launch.blocks.resident,
            traffic: launch.traffic,
            cost: launch.cost,
        })));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grid_has_a_block_for_every_part_of_the_work() {
        let blocks = Blocks {
            takes: 128,
            columns: 2,
            planes: 4,
            ..Blocks::of_threads(256)
        };
        let work = |fixed, per_sample| Work { fixed, per_sample };
        assert_eq!(grid(work(0, 49), &blocks, 8), [2 * 4, 4]);
        assert_eq!(grid(work(129, 0), &blocks, 8), [2 * 2, 4]);
        assert_eq!(grid(work(400, 49), &blocks, 8), [2 * 4, 4]);
    }
}
