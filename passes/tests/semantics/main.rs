//! What the passes promise, proven with the reference evaluation.

mod gradients;
mod memory;
mod networks;
mod preserve;
mod ranks;
mod structure;
mod support;
