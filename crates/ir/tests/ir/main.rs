//! Tests of the graph: evaluation, gradients, synchronised BatchNorm, verifier, text form, builder.

#![allow(clippy::unwrap_used)]

mod builder;
mod documentation;
mod evaluate;
mod gradients;
mod interpreter;
mod networks;
mod pools;
mod schedule;
mod support;
mod sync_batch_norm;
mod text;
mod verifier;
