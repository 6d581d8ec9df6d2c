//! The CUDA driver's functions.

mod general;
mod graph;
mod memory;
mod module;
mod stream;

pub use general::*;
pub use graph::*;
pub use memory::*;
pub use module::*;
pub use stream::*;
