//! Graph inputs that are weights: which they are, and how `--init` fills them.

use std::collections::HashSet;

use syncbn_ir::DType;

use crate::inputs::{Declared, declared};
use crate::names::Names;
use crate::proto::{GraphProto, NodeProto, ValueInfoProto};

/// How `--init` fills a weight.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum InitRule {
    /// With one value.
    Fill(f64),
    /// Kaiming normal; the index of the axis of the weight that counts the inputs, or None for all but the
    /// first.
    Kaiming(Option<usize>),
}

/// A graph input in a trainable slot.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct WeightInput {
    /// Its name.
    pub name: String,
    /// Its sizes.
    pub dims: Vec<usize>,
    /// Element type in the file.
    pub dtype: DType,
    /// How it starts outside of BatchNorm's slots, which have rules of their own.
    pub rule: InitRule,
}

/// Names that depend on an input that is certainly data: one with a symbolic size, or else the first that has
/// no initializer and all that have its shape.
pub(crate) fn data_names<'a>(file: &'a GraphProto, names: &Names) -> HashSet<&'a str> {
    let symbolic = |info: &&ValueInfoProto| match declared(info) {
        Ok(Some((_, Some(dims)))) => dims.iter().any(|d| matches!(d, Declared::Symbol(_))),
        _ => false,
    };
    let initialized: HashSet<&str> = file.initializer.iter().map(|t| t.name()).collect();
    let inputs = || file.input.iter().filter(|i| !initialized.contains(i.name()));
    let mut data: HashSet<&str> = inputs().filter(symbolic).map(|i| i.name()).collect();
    if data.is_empty() {
        let shape = |info: &ValueInfoProto| declared(info).ok().flatten().map(|(_, dims)| dims);
        let first = inputs().find(|i| names.is_used(i.name()));
        data.extend(
            inputs()
                .filter(|i| first.is_some_and(|f| shape(f) == shape(i)))
                .map(|i| i.name()),
        );
    }
    for node in &file.node {
        // A shape is known without the data.
        if node.op_type() != "Shape" && node.input.iter().any(|name| data.contains(name.as_str())) {
            data.extend(node.output.iter().map(String::as_str).filter(|o| !o.is_empty()));
        }
    }
    data
}

/// The trainable slot that a graph input reaches, directly or through values that depend on no data.
pub(crate) fn trainable_slot(
    name: &str,
    names: &Names,
    data: &HashSet<&str>,
    dims: &[usize],
) -> Option<InitRule> {
    let mut seen = HashSet::new();
    let mut queue = vec![(name.to_string(), false)];
    while let Some((name, transposed)) = queue.pop() {
        if seen.len() > 256 || !seen.insert((name.clone(), transposed)) {
            continue;
        }
        for &(node, slot) in names.readers(&name) {
            let on_data = node.input.iter().any(|input| data.contains(input.as_str()));
            if let Some(rule) = slot_rule(node, slot, transposed, on_data, dims) {
                return Some(rule);
            }
            if !on_data && node.op_type() != "Shape" {
                let turned = transposed != (node.op_type() == "Transpose");
                queue.extend(node.output.first().map(|o| (o.clone(), turned)));
            }
        }
    }
    None
}

fn slot_rule(
    node: &NodeProto,
    slot: usize,
    transposed: bool,
    on_data: bool,
    dims: &[usize],
) -> Option<InitRule> {
    let inner_axis = |second: bool| if second != transposed { Some(1) } else { Some(0) };
    match (node.op_type(), slot) {
        ("Conv", 1) => Some(InitRule::Kaiming(None)),
        ("ConvTranspose", 1) => Some(InitRule::Kaiming(Some(0))),
        ("Gemm", 1) => {
            let trans_b = node.attribute.iter().any(|a| a.name() == "transB" && a.i() != 0);
            Some(InitRule::Kaiming(inner_axis(trans_b)))
        }
        ("MatMul", 1) if dims.len() == 2 => Some(InitRule::Kaiming(inner_axis(false))),
        ("Conv" | "ConvTranspose" | "Gemm", 2) => Some(InitRule::Fill(0.0)),
        ("BatchNormalization", 2 | 3) => Some(InitRule::Fill(0.0)),
        ("BatchNormalization", 1 | 4) => Some(InitRule::Fill(1.0)),
        ("Add", _) if on_data && !dims.is_empty() => Some(InitRule::Fill(0.0)),
        ("Mul", _) if on_data && !dims.is_empty() => Some(InitRule::Fill(1.0)),
        _ => None,
    }
}
