//! What the passes promise, proven with the reference evaluation.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod gradients;
mod memory;
mod networks;
mod operators;
mod preserve;
mod random;
#[path = "../random_network/mod.rs"]
mod random_network;
mod ranks;
mod raw_networks;
mod schedule;
mod structure;
mod support;
