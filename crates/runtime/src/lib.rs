//! The runtime that is linked into every compiled model: ranks, collectives, memory, data, checkpoints, and
//! the command line of the executable.

pub mod all_reduce;
pub mod arena;
pub mod atomic_file;
pub mod barrier;
pub mod bench;
pub mod checkpoint;
pub mod cli;
pub mod collectives;
pub mod cpu;
pub mod crew;
pub mod data;
#[cfg(feature = "entry")]
pub mod entry;
pub mod error;
pub mod execution;
pub mod infer;
pub mod info;
pub mod initial;
pub mod launcher;
pub mod panics;
pub mod program;
pub mod rank;
pub mod report;
pub mod run;
pub mod sampler;
pub mod schedule;
pub mod train;
