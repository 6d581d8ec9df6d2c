//! The CUDA driver's functions.

mod general;
mod graph;
mod memory;
mod module;
mod stream;

// What a wrong caller calls (`plant`).
pub use general::cuCtxSynchronize;
pub use memory::cuMemFree_v2;
pub use stream::{cuStreamSynchronize, cuStreamWaitEvent};
