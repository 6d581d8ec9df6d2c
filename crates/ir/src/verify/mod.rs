//! The verifier: what every stage may rely on. It runs around every pass, so that a broken graph is found where
//! it was broken.

mod attributes;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::graph::{Arena, Graph, Location, NodeId, Output, OutputKind, Value};
use crate::ops::Op;
use crate::types::{DType, Dim, Layout, TensorType};

/// One thing that is wrong with a graph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifyError {
    /// The node, or none where an output or the whole graph is wrong.
    pub node: Option<NodeId>,
    /// What is named: `node %3 "stem.conv" (conv)` with the number of the text form, or `output "y"`.
    pub subject: String,
    /// What is wrong.
    pub message: String,
}

impl fmt::Display for VerifyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.subject, self.message)
    }
}

impl std::error::Error for VerifyError {}

/// Checks a graph and reports all that is wrong with it.
///
/// A graph that passes is acyclic; every operand exists and every result has the element type and shape that
/// inference gives (its layout is chosen by passes); sizes in bytes fit an i64; attributes are in range; names
/// of inputs, parameters and statistics are unique; outputs exist, are unique and fit their kind; planned
/// locations are aligned. Whether planned locations overlap is not checked.
pub fn verify(graph: &Graph) -> Result<(), Vec<VerifyError>> {
    let mut verifier = Verifier::new(graph);
    for id in graph.nodes() {
        verifier.node(id);
    }
    verifier.names();
    verifier.outputs();
    if verifier.errors.is_empty() {
        Ok(())
    } else {
        Err(verifier.errors)
    }
}

struct Verifier<'a> {
    graph: &'a Graph,
    numbers: BTreeMap<NodeId, usize>,
    errors: Vec<VerifyError>,
}

impl<'a> Verifier<'a> {
    fn new(graph: &'a Graph) -> Verifier<'a> {
        let mut errors = Vec::new();
        let order = graph.topological().unwrap_or_else(|error| {
            errors.push(VerifyError {
                node: None,
                subject: format!("graph {:?}", graph.name),
                message: error.to_string(),
            });
            graph.nodes().collect()
        });
        Verifier {
            graph,
            numbers: order.into_iter().enumerate().map(|(i, id)| (id, i)).collect(),
            errors,
        }
    }

    fn error(&mut self, id: NodeId, message: impl Into<String>) {
        let node = self.graph.node(id);
        let name = match (node.name.as_str(), source_name(&node.op)) {
            ("", Some(name)) => format!(" {name:?}"),
            ("", None) => String::new(),
            (name, _) => format!(" {name:?}"),
        };
        let number = self.numbers.get(&id).copied().unwrap_or_default();
        self.errors.push(VerifyError {
            node: Some(id),
            subject: format!("node %{number}{name} ({})", node.op.name()),
            message: message.into(),
        });
    }

    fn node(&mut self, id: NodeId) {
        if let Err(message) = attributes::check(self.graph.op(id)) {
            self.error(id, message);
        }
        let slots = self.graph.operand_slots(id);
        if !slots.iter().copied().eq(0..slots.len()) {
            return self.error(
                id,
                format!("operand slots {slots:?} are not 0 to {}", slots.len()),
            );
        }
        match self.graph.infer_node(id) {
            Err(crate::GraphError::Type { message, .. }) => self.error(id, message),
            Err(other) => self.error(id, other.to_string()),
            Ok(inferred) => {
                self.results(id, &inferred);
                self.schedule(id);
                self.transforms(id);
            }
        }
    }

    fn results(&mut self, id: NodeId, inferred: &[TensorType]) {
        let outputs = &self.graph.node(id).outputs;
        if outputs.len() != inferred.len() {
            let message = format!("has {} results, expected {}", outputs.len(), inferred.len());
            return self.error(id, message);
        }
        for (slot, (output, expected)) in outputs.iter().zip(inferred).enumerate() {
            if !same(&output.ty, expected) {
                self.error(
                    id,
                    format!("result {slot} has type {}, expected {expected}", output.ty),
                );
            }
            if let Err(message) = check_type(&output.ty) {
                self.error(id, format!("result {slot} {message}"));
            }
            if let Some(Err(message)) = output.location.map(|l| check_location(l, &output.ty)) {
                self.error(id, format!("result {slot} {message}"));
            }
        }
    }

    fn schedule(&mut self, id: NodeId) {
        let node = self.graph.node(id);
        if let Some(schedule) = node.schedule {
            let (operands, results) = self.graph.types(id);
            if let Err(reason) = schedule.fits(&node.op, &operands, &results) {
                self.error(id, format!("schedule {schedule} does not fit: {reason}"));
            }
        }
        if let Some(location) = node.workspace {
            // Its size follows from the batch bound, which the graph does not know.
            if let Err(message) = check_place(location, Some(0)) {
                self.error(id, format!("workspace {message}"));
            }
        }
    }

    /// Transformed weights are made by a copy, and known to convolutions whose schedule reads them.
    fn transforms(&mut self, id: NodeId) {
        let graph = self.graph;
        for (slot, output) in graph.node(id).outputs.iter().enumerate() {
            let layout = output.ty.layout;
            if !layout.is_transformed() {
                continue;
            }
            let value = Value { node: id, slot };
            let reads = |&(user, slot): &(NodeId, usize)| {
                let schedule = graph.schedule(user).and_then(|s| s.transformed_filter());
                matches!(graph.op(user), Op::Conv(_)) && slot == 1 && schedule == Some(layout)
            };
            let is_output = graph.outputs.iter().any(|o| o.value == value);
            // Whole vectors of a block are transformed at a time.
            let is_filter = |v: Value| {
                let of = match graph.ty(v).layout {
                    Layout::Filter(v) => Some(v),
                    _ => None,
                };
                of.zip(layout.block())
                    .is_some_and(|(v, block)| block.is_multiple_of(v))
            };
            let is_copy =
                matches!(graph.op(id), Op::Identity(_)) && graph.operand(id, 0).is_some_and(is_filter);
            if !is_copy || is_output || !graph.users(value).iter().all(reads) {
                let message = "is for a copy that convolutions with such a schedule read";
                self.error(
                    id,
                    format!("result {slot} has type {}, whose layout {message}", output.ty),
                );
            }
        }
    }

    fn names(&mut self) {
        let mut seen: BTreeMap<&str, &'static str> = BTreeMap::new();
        let graph = self.graph;
        for id in graph.nodes() {
            let op = graph.op(id);
            let Some(name) = source_name(op) else { continue };
            if let Some(other) = seen.insert(name, op.name()) {
                self.error(id, format!("the name {name:?} is also that of another {other}"));
            }
        }
    }

    fn outputs(&mut self) {
        let mut seen = BTreeSet::new();
        for output in &self.graph.outputs {
            let mut check = check_output(self.graph, output);
            if check.is_ok() && !seen.insert((output.kind, &output.name)) {
                check = Err("is there twice".to_string());
            }
            if let Err(message) = check {
                self.errors.push(VerifyError {
                    node: None,
                    subject: format!("{} {:?}", output.kind.name(), output.name),
                    message,
                });
            }
        }
    }
}

/// Types are the same when element type and shape are; layouts are a matter of passes.
fn same(a: &TensorType, b: &TensorType) -> bool {
    a.dtype == b.dtype && a.shape == b.shape
}

fn source_name(op: &Op) -> Option<&str> {
    match op {
        Op::Input(i) => Some(&i.name),
        Op::Parameter(p) => Some(&p.name),
        Op::Statistic(s) => Some(&s.name),
        _ => None,
    }
}

fn check_type(ty: &TensorType) -> Result<(), String> {
    if ty.shape.0.iter().skip(1).any(|d| *d == Dim::Batch) {
        return Err(format!(
            "has type {ty}: the batch can only be the first dimension"
        ));
    }
    let channels = |axis: usize| ty.shape.0.get(axis).and_then(|d| d.fixed());
    let fits = match ty.layout {
        Layout::Plain => true,
        Layout::Nhwc => channels(1).is_some(),
        Layout::Filter(v) => v > 0 && channels(0).and(channels(1)).is_some(),
        Layout::Winograd(v) | Layout::Polyphase(v) => v > 0 && ty.has_transform() && ty.dtype == DType::F32,
    };
    if !fits {
        let needed = match ty.layout.is_transformed() {
            true => "is for weights of 3x3 convolutions",
            false => "needs a channel axis",
        };
        return Err(format!("has type {ty}, whose layout {needed}"));
    }
    match ty.bytes(1) {
        Some(_) => Ok(()),
        None => Err(format!("has type {ty}, which is too large")),
    }
}

fn check_location(location: Location, ty: &TensorType) -> Result<(), String> {
    match location.arena {
        Arena::Inputs | Arena::Outputs => Ok(()),
        _ => check_place(location, ty.bytes(1)),
    }
}

/// Checks where something of this many bytes lies in an arena.
fn check_place(location: Location, bytes: Option<u64>) -> Result<(), String> {
    let place = format!("lies at {}+{}", location.arena.name(), location.offset);
    if !location.offset.is_multiple_of(64) {
        return Err(format!("{place}, which is not a multiple of 64"));
    }
    let end = bytes.and_then(|n| location.offset.checked_add(n));
    match end {
        Some(end) if i64::try_from(end).is_ok() => Ok(()),
        _ => Err(format!("{place}, beyond any memory")),
    }
}

fn check_output(graph: &Graph, output: &Output) -> Result<(), String> {
    let Some(ty) = graph.try_type(output.value) else {
        return Err("names a value that does not exist".to_string());
    };
    let source = || {
        graph.nodes().find(|&id| {
            let op = graph.op(id);
            let right_kind = matches!(op, Op::Statistic(_)) == (output.kind == OutputKind::Statistic);
            right_kind && source_name(op) == Some(&output.name)
        })
    };
    let expected = match output.kind {
        OutputKind::Output => return Ok(()),
        OutputKind::Loss => TensorType::fixed(DType::F64, &[1]),
        OutputKind::Gradient => {
            let source = source().ok_or("names no parameter and no input")?;
            graph.ty(source.into()).clone()
        }
        OutputKind::Statistic => {
            let source = source().ok_or("names no running statistic")?;
            graph.ty(source.into()).clone()
        }
    };
    if same(ty, &expected) {
        return Ok(());
    }
    Err(format!("has type {ty}, expected {expected}"))
}
