//! What lowering knows of a GPU.

use syncbn_ir::schedule::ImplicitGemm;
use syncbn_ir::{Schedule, TensorType};

use crate::ops::target::Types;
use crate::program::Products;

/// A GPU.
#[derive(Debug, Clone, Copy)]
pub struct Gpu {
    /// How it multiplies matrices.
    pub products: Products,
    /// Largest batch.
    pub batch_bound: i64,
}

/// What is wrong with a node whose schedule cannot be followed.
pub const UNFIT: &str =
    "its schedule is implicit_gemm, which its layouts or channels are not for; let assign-layouts run";

impl Gpu {
    /// How a node's product is divided on tensor cores; None where it has the general form.
    pub fn schedule(&self, types: &Types) -> Result<Option<ImplicitGemm>, String> {
        let is_operand = |ty: &&TensorType| ty.dtype == self.products.operand();
        match types.schedule {
            None | Some(Schedule::General) => Ok(None),
            Some(Schedule::ImplicitGemm(s)) if types.operands.iter().take(2).all(is_operand) => Ok(Some(s)),
            Some(Schedule::ImplicitGemm(_)) => Err(format!(
                "its schedule is implicit_gemm, and its operands are not {}, which --precision makes them",
                self.products.operand()
            )),
            Some(other) => Err(format!("a GPU has no code for schedule {}", other.name())),
        }
    }
}
