//! Data sets: npz files with the model's inputs and the training target.

mod convert;
mod dataset;
pub mod half;
mod npy;
mod npz;

pub use dataset::{Column, Dataset};
pub use npz::{Archive, write as write_npz};
