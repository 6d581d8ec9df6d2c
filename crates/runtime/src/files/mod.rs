//! What is read and written: data sets, checkpoints, and files that appear whole or not at all.

pub mod atomic_file;
pub mod checkpoint;
pub mod data;
