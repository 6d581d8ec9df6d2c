//! Initializers become parameters and running statistics where they are used.

use std::sync::Arc;

use syncbn_ir::ops::{Parameter, ParameterData, Statistic};
use syncbn_ir::{DType, Literal, TensorType, Value};

use crate::binding::{Slot, Weight};
use crate::error::ImportError;
use crate::importer::Importer;
use crate::initializers::Origin;
use crate::weight_inputs::{InitRule, WeightInput};

impl Importer<'_> {
    /// The graph's value of a weight in a slot. Uses in one slot kind are tied; BatchNorm slots of different
    /// kinds, and Identity copies in BatchNorm slots, are tensors of their own. So are Identity copies of
    /// uniform tensors, such as zero biases: exporters tie these because they are equal, not because they are
    /// shared.
    pub(crate) fn weight(&mut self, weight: &Weight, slot: Slot, node: &str) -> Result<Value, ImportError> {
        let own = slot != Slot::Data || self.is_uniform(weight)?;
        let copy = weight.copy.clone().filter(|_| own);
        let initializer = &self.initializers[weight.index];
        let known = initializer
            .nodes
            .iter()
            .find(|(c, s, _)| *c == copy && *s == slot);
        if let Some((_, _, value)) = known {
            return Ok(*value);
        }
        let plain = copy.clone().unwrap_or_else(|| initializer.name.clone());
        let first = !initializer.nodes.iter().any(|(c, _, _)| *c == copy);
        if initializer.dims.contains(&0) {
            return Err(ImportError::user(format!(
                "initializer \"{}\" of shape {:?} is empty: it has a zero size",
                initializer.name, initializer.dims
            )));
        }
        let name = if first {
            plain
        } else {
            self.free_name(&plain, node, slot)
        };
        let (dtype, data) = self.first_values(weight.index, slot)?;
        let ty = TensorType::fixed(dtype, &self.initializers[weight.index].dims);
        let value: Value = match slot {
            Slot::Mean | Slot::Variance => {
                let op = Statistic {
                    name: name.clone(),
                    ty,
                    data,
                };
                self.graph_value(op, &name, &[])?
            }
            Slot::Data | Slot::Scale | Slot::Bias => {
                let trained = slot != Slot::Data;
                let op = Parameter {
                    name: name.clone(),
                    trained,
                    ty,
                    data,
                };
                self.graph_value(op, &name, &[])?
            }
        };
        self.tensor_names.insert(name);
        self.initializers[weight.index].nodes.push((copy, slot, value));
        Ok(value)
    }

    /// Whether all elements of a copied weight start with one value.
    fn is_uniform(&self, weight: &Weight) -> Result<bool, ImportError> {
        if weight.copy.is_none() {
            return Ok(false);
        }
        match &self.initializers[weight.index].origin {
            Origin::Init(input) => Ok(matches!(input.rule, InitRule::Fill(_))),
            Origin::File(..) => Ok(self.weight_literal(weight)?.is_some_and(|l| l.splat().is_some())),
        }
    }

    /// `<initializer>.<node>`, made longer where that is taken.
    pub(crate) fn free_name(&self, plain: &str, node: &str, slot: Slot) -> String {
        let base = format!("{plain}.{node}");
        let longer = format!("{base}.{}", slot.name());
        let numbered = (2..).map(|i| format!("{longer}.{i}"));
        let mut names = [base, longer.clone()].into_iter().chain(numbered);
        let taken = |name: &str| self.tensor_names.contains(name) || self.bindings.contains_key(name);
        names.find(|name| !taken(name)).unwrap_or(longer)
    }

    /// Element type and first values of an initializer in a slot.
    fn first_values(&self, index: usize, slot: Slot) -> Result<(DType, ParameterData), ImportError> {
        let initializer = &self.initializers[index];
        match &initializer.origin {
            Origin::File(tensor, header) => {
                let dtype = self.graph_dtype(header.element)?;
                let literal = header.literal(tensor, dtype)?;
                if slot == Slot::Variance {
                    check_variance(&initializer.name, &literal)?;
                }
                Ok((dtype, ParameterData::Values(Arc::new(literal))))
            }
            Origin::Init(input) => Ok((self.float_dtype(input.dtype), initial(input, slot))),
        }
    }

    /// The graph's element type of a weight.
    pub(crate) fn weight_dtype(&self, weight: &Weight) -> DType {
        match &self.initializers[weight.index].origin {
            Origin::File(_, header) => self.graph_dtype(header.element).unwrap_or(self.file_dtype),
            Origin::Init(input) => self.float_dtype(input.dtype),
        }
    }

    /// The values of a weight that the file gives, without adding it to the graph.
    pub(crate) fn weight_literal(&self, weight: &Weight) -> Result<Option<Literal>, ImportError> {
        let initializer = &self.initializers[weight.index];
        match &initializer.origin {
            Origin::File(tensor, header) => {
                Ok(Some(header.literal(tensor, self.graph_dtype(header.element)?)?))
            }
            Origin::Init(_) => Ok(None),
        }
    }
}

/// Refuses a running variance that has no square root.
pub(crate) fn check_variance(name: &str, literal: &Literal) -> Result<(), ImportError> {
    match literal.to_f64().iter().position(|v| *v < 0.0 || v.is_nan()) {
        Some(i) => Err(ImportError::user(format!(
            "running variance \"{name}\" is negative or not a number at channel {i}"
        ))),
        None => Ok(()),
    }
}

fn initial(input: &WeightInput, slot: Slot) -> ParameterData {
    let all = |dims: &[usize]| dims.iter().product::<usize>().max(1);
    match (slot, input.rule) {
        (Slot::Scale | Slot::Variance, _) => ParameterData::Fill(1.0),
        (Slot::Bias | Slot::Mean, _) => ParameterData::Fill(0.0),
        (Slot::Data, InitRule::Fill(value)) => ParameterData::Fill(value),
        (Slot::Data, InitRule::Kaiming(axis)) => {
            let fan_in = match axis.and_then(|a| input.dims.get(a)) {
                Some(&size) => size.max(1),
                None => all(input.dims.get(1..).unwrap_or(&[])),
            };
            ParameterData::KaimingNormal { fan_in }
        }
    }
}
