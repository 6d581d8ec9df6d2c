//! Collectives.

use super::{Operator, StepInfo};
use crate::attributes::Word;
use crate::tensor::Array;
use crate::types::{DType, TensorType};

/// Which ranks take part together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// All ranks.
    All,
    /// Groups of this many neighbouring ranks.
    Group(usize),
}

impl Word for Scope {
    fn to_word(&self) -> (String, Vec<f64>) {
        match self {
            Scope::All => ("all".to_string(), Vec::new()),
            Scope::Group(k) => ("group".to_string(), vec![*k as f64]),
        }
    }
    fn from_word(word: &str, args: &[f64]) -> Option<Scope> {
        match (word, args) {
            ("all", []) => Some(Scope::All),
            ("group", &[k]) if k >= 1.0 && k.fract() == 0.0 => Some(Scope::Group(k as usize)),
            _ => None,
        }
    }
}

operator! {
    /// One collective that sums every operand over the ranks of its scope, in rank order.
    ///
    /// Operands: one or more tensors of f32 or f64 without a batch dimension. Results: the sums, of the same
    /// types. With one rank it is the identity and nothing is executed.
    AllReduce = "all_reduce" {
        /// Who takes part.
        scope: Scope,
    }
}

impl Operator for AllReduce {
    fn infer(&self, operands: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        if operands.is_empty() {
            return Err("expected at least 1 operand, found 0".to_string());
        }
        match operands
            .iter()
            .find(|t| !matches!(t.dtype, DType::F32 | DType::F64) || t.shape.has_batch())
        {
            Some(bad) => Err(format!("operand of type {bad} cannot be summed over ranks")),
            None => Ok(operands.iter().map(|&t| t.clone()).collect()),
        }
    }

    /// What one rank alone computes; the interpreter sums over ranks itself.
    fn evaluate(&self, operands: &[&Array], _: StepInfo) -> Result<Vec<Array>, String> {
        Ok(operands.iter().map(|&a| a.clone()).collect())
    }
}
