//! Nodes without operands: inputs, parameters, running statistics and constants.

use std::sync::Arc;

use super::{Operator, StepInfo, expect_operands};
use crate::attributes::Word;
use crate::tensor::{Array, Literal};
use crate::types::TensorType;

/// What an input carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// An ONNX input.
    Data,
    /// The training target.
    Target,
}

impl Word for Role {
    fn to_word(&self) -> (String, Vec<f64>) {
        let word = match self {
            Role::Data => "data",
            Role::Target => "target",
        };
        (word.to_string(), Vec::new())
    }
    fn from_word(word: &str, args: &[f64]) -> Option<Role> {
        [Role::Data, Role::Target]
            .into_iter()
            .find(|r| r.to_word().0 == word && args.is_empty())
    }
}

/// How a parameter or statistic starts.
#[derive(Debug, Clone, PartialEq)]
pub enum ParameterData {
    /// With these values.
    Values(Arc<Literal>),
    /// With one value everywhere.
    Fill(f64),
    /// Kaiming normal: deviation `sqrt(2 / fan_in)`.
    KaimingNormal {
        /// Inputs of one output.
        fan_in: usize,
    },
    /// Values that the text form left out; only their hash is known. Cannot be compiled.
    Elided {
        /// FNV-1a of the little-endian bytes.
        hash: u64,
    },
}

operator! {
    /// A graph input. Results: the value, whose first dimension is the batch.
    Input = "input" {
        /// ONNX name.
        name: String,
        /// Data or target.
        role: Role,
        /// Type.
        ty: TensorType,
    }
}

operator! {
    /// A tensor of the weights arena: trained or, in a frozen layer or a slot that is not trained, constant
    /// during training.
    Parameter = "parameter" {
        /// ONNX initializer name.
        name: String,
        /// Whether it is trained.
        trained: bool,
        /// Type.
        ty: TensorType,
        /// First value.
        data: ParameterData,
    }
}

operator! {
    /// A running mean or variance: private to a rank, changed by training steps, not by gradients.
    Statistic = "statistic" {
        /// ONNX initializer name.
        name: String,
        /// Type.
        ty: TensorType,
        /// First value.
        data: ParameterData,
    }
}

operator! {
    /// A constant tensor.
    Constant = "constant" {
        /// The values.
        value: Arc<Literal>,
    }
}

impl Operator for Input {
    fn infer(&self, operands: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        expect_operands(operands, 0..=0)?;
        Ok(vec![self.ty.clone()])
    }
    fn evaluate(&self, _: &[&Array], _: StepInfo) -> Result<Vec<Array>, String> {
        Err(format!("input \"{}\" has no value", self.name))
    }
}

fn check_data(name: &str, ty: &TensorType, data: &ParameterData) -> Result<(), String> {
    if ty.shape.has_batch() {
        return Err(format!("\"{name}\" of type {ty} depends on the batch"));
    }
    match data {
        ParameterData::Values(l) if l.ty().shape != ty.shape || l.dtype() != ty.dtype => {
            Err(format!("\"{name}\" of type {ty} has values of type {}", l.ty()))
        }
        _ => Ok(()),
    }
}

impl Operator for Parameter {
    fn infer(&self, operands: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        expect_operands(operands, 0..=0)?;
        check_data(&self.name, &self.ty, &self.data)?;
        Ok(vec![self.ty.clone()])
    }
    fn evaluate(&self, _: &[&Array], _: StepInfo) -> Result<Vec<Array>, String> {
        Err(format!("parameter \"{}\" has no value", self.name))
    }
}

impl Operator for Statistic {
    fn infer(&self, operands: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        expect_operands(operands, 0..=0)?;
        check_data(&self.name, &self.ty, &self.data)?;
        Ok(vec![self.ty.clone()])
    }
    fn evaluate(&self, _: &[&Array], _: StepInfo) -> Result<Vec<Array>, String> {
        Err(format!("statistic \"{}\" has no value", self.name))
    }
}

impl Operator for Constant {
    fn infer(&self, operands: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        expect_operands(operands, 0..=0)?;
        Ok(vec![self.value.ty()])
    }
    fn evaluate(&self, _: &[&Array], _: StepInfo) -> Result<Vec<Array>, String> {
        Ok(vec![self.value.to_array()])
    }
}
