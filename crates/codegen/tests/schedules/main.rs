//! Every schedule of the CPU, in every direction, vector width and ragged shape, against the reference evaluation.

#![allow(clippy::unwrap_used)]

mod convolutions;
mod depthwise;
mod harness;
mod products;
mod timing;
