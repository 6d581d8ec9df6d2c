//! Import of ONNX files: every operator and form, refusals, and files that are not what they seem.

#![allow(clippy::unwrap_used, clippy::panic)]

mod batch;
mod batch_norm;
mod common;
mod dev;
mod files;
mod hostile;
mod mutations;
mod node_cases;
mod parameters;
mod primitive_batch_norm;
mod references;
mod refused_forms;
mod zoo;
