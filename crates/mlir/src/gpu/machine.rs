//! What lowering knows of a GPU.

use crate::program::Products;

/// A GPU.
#[derive(Debug, Clone, Copy)]
pub struct Gpu {
    /// How it multiplies matrices.
    pub products: Products,
    /// Largest batch.
    pub batch_bound: i64,
}
