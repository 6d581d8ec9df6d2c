//! Operators as index functions, written once for all targets: a logical index to reads, arithmetic and a store.
//! How indices become loops, lanes or threads is the emitter's matter.

pub mod batch_norm;
pub mod batch_norm_backward;
mod channels;
pub mod convolution;
pub mod elementwise;
pub mod kernel;
pub mod loss;
pub mod moments;
pub mod pool;
pub mod reduce;
pub mod resize;
pub mod update;
