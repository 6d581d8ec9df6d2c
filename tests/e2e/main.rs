//! End-to-end tests: files go through `syncbn-compile`, and what the executables compute is compared with
//! references.
//!
//! Nothing here links the compiler: the tests run it, as a user would.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod accuracy;
mod bad_input;
mod corpus;
mod determinism;
mod emits;
mod example;
mod filecheck;
mod gpu;
mod hostile;
mod modes;
mod networks;
mod per_layer;
mod prepared;
mod random;
mod recipes;
mod repeated;
mod support;
mod threads;
