//! The official ONNX schema (`proto/onnx.proto`, Apache-2.0) as Rust types, generated at build time.

#![allow(missing_docs, clippy::all)]

include!(concat!(env!("OUT_DIR"), "/onnx.rs"));
