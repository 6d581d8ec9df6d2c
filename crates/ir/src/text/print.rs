//! Graph to text.

use std::collections::BTreeMap;
use std::fmt::{self, Write};

use super::{MAX_PRINTED, MAX_SPLAT, fnv1a};
use crate::attributes::{Attribute, AttributeValue};
use crate::graph::{Graph, NodeId, Value};
use crate::ops::{Op, ParameterData};
use crate::schedule::Schedule;
use crate::tensor::{Literal, Values, bf16_value};

/// The text form of a graph, nodes in topological order and numbered in it. A graph with a cycle (a bug, which
/// the verifier reports) prints too, but does not parse.
pub fn print(graph: &Graph) -> String {
    graph.to_string()
}

impl fmt::Display for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let order = self.topological().unwrap_or_else(|_| self.nodes().collect());
        let numbers: BTreeMap<NodeId, usize> = order.iter().enumerate().map(|(i, &id)| (id, i)).collect();
        writeln!(f, "graph {} {{", quoted(&self.name))?;
        for &id in &order {
            write_node(f, self, id, &numbers)?;
        }
        write_outputs(f, self, &numbers)?;
        f.write_str("}\n")
    }
}

fn write_outputs(
    f: &mut fmt::Formatter<'_>,
    graph: &Graph,
    numbers: &BTreeMap<NodeId, usize>,
) -> fmt::Result {
    f.write_str("  return")?;
    let separator = if graph.outputs.len() > 1 { "\n    " } else { " " };
    for (i, output) in graph.outputs.iter().enumerate() {
        write!(
            f,
            "{}{separator}{}",
            if i > 0 { "," } else { "" },
            output.kind.name()
        )?;
        if !output.name.is_empty() {
            write!(f, " {}", quoted(&output.name))?;
        }
        write!(f, " {}", reference(output.value, numbers))?;
    }
    f.write_str("\n")
}

fn write_node(
    f: &mut fmt::Formatter<'_>,
    graph: &Graph,
    id: NodeId,
    numbers: &BTreeMap<NodeId, usize>,
) -> fmt::Result {
    let node = graph.node(id);
    write!(f, "  {}", reference(id.into(), numbers))?;
    if node.outputs.len() != 1 {
        write!(f, ":{}", node.outputs.len())?;
    }
    write!(f, " = {}", node.op.name())?;
    let operands = graph.operands(id);
    match &node.op {
        Op::Input(op) => write!(f, " {} {}", quoted(&op.name), attribute(&op.role.to_attribute()))?,
        Op::Parameter(op) => {
            let kind = if op.trained { "trained" } else { "frozen" };
            write!(f, " {} {kind} {}", quoted(&op.name), data(&op.data))?;
        }
        Op::Statistic(op) => write!(f, " {} {}", quoted(&op.name), data(&op.data))?,
        Op::Constant(op) => write!(f, " {}", constant(&op.value))?,
        op => {
            let operands: Vec<String> = operands.iter().map(|&v| reference(v, numbers)).collect();
            write!(f, "({})", operands.join(", "))?;
            let attributes = op.attributes();
            let attributes = attributes.iter().map(named);
            let schedule = node.schedule.map(|schedule| format!("schedule = {schedule}"));
            let attributes: Vec<String> = attributes.chain(schedule).collect();
            if !attributes.is_empty() {
                write!(f, " {{{}}}", attributes.join(", "))?;
            }
        }
    }
    for (i, output) in node.outputs.iter().enumerate() {
        write!(f, "{}{}", if i == 0 { " : " } else { ", " }, output.ty)?;
        if let Some(location) = output.location {
            write!(f, " @{}+{}", location.arena.name(), location.offset)?;
        }
    }
    if let Some(location) = node.workspace {
        write!(f, " workspace @{}+{}", location.arena.name(), location.offset)?;
    }
    if !node.name.is_empty() {
        write!(f, " {}", quoted(&node.name))?;
    }
    f.write_str("\n")
}

fn named((name, value): &(&'static str, Attribute)) -> String {
    format!("{name} = {}", attribute(value))
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fields: Vec<String> = self.fields().iter().map(named).collect();
        match fields.is_empty() {
            true => f.write_str(self.name()),
            false => write!(f, "{}({})", self.name(), fields.join(", ")),
        }
    }
}

fn reference(v: Value, numbers: &BTreeMap<NodeId, usize>) -> String {
    match (numbers.get(&v.node), v.slot) {
        (Some(number), 0) => format!("%{number}"),
        (Some(number), slot) => format!("%{number}#{slot}"),
        (None, _) => format!("%removed{}", v.node.number()),
    }
}

fn data(data: &ParameterData) -> String {
    match data {
        ParameterData::Values(l) if l.len() <= MAX_PRINTED => list(&elements(l)),
        ParameterData::Values(l) => format!("elided({:016x})", fnv1a(&l.to_bytes())),
        ParameterData::Elided { hash } => format!("elided({hash:016x})"),
        ParameterData::Fill(_) | ParameterData::KaimingNormal { .. } => attribute(&data.to_attribute()),
    }
}

/// A constant is part of the meaning of a graph, so all its values are printed; only one value that all
/// elements share is printed once.
fn constant(literal: &Literal) -> String {
    // All NaN read back as the same NaN, so they count as one value.
    let nan = || literal.to_f64().iter().all(|x| x.is_nan());
    if (2..=MAX_SPLAT).contains(&literal.len()) && (literal.splat().is_some() || nan()) {
        return format!("splat({})", element(literal, 0));
    }
    list(&elements(literal))
}

fn list(elements: &[String]) -> String {
    format!("[{}]", elements.join(", "))
}

fn elements(literal: &Literal) -> Vec<String> {
    (0..literal.len()).map(|i| element(literal, i)).collect()
}

fn element(literal: &Literal, i: usize) -> String {
    match &literal.values {
        Values::F32(v) => not_a_number(format!("{:?}", v[i])),
        Values::F64(v) => float(v[i]),
        Values::BF16(v) => not_a_number(format!("{:?}", bf16_value(v[i]) as f32)),
        Values::I64(v) => v[i].to_string(),
        Values::U8(v) => v[i].to_string(),
    }
}

/// Shortest text that reads back as the same number, always with a point or an exponent.
fn float(x: f64) -> String {
    not_a_number(format!("{x:?}"))
}

fn not_a_number(text: String) -> String {
    if text == "NaN" { "nan".to_string() } else { text }
}

/// Arguments of words: whole numbers print without a point.
fn argument(x: f64) -> String {
    if x.fract() == 0.0 && x.abs() < 1e15 {
        format!("{x}")
    } else {
        float(x)
    }
}

fn attribute(value: &Attribute) -> String {
    match value {
        Attribute::Int(i) => i.to_string(),
        Attribute::Float(x) => float(*x),
        Attribute::Bool(b) => b.to_string(),
        Attribute::Text(text) => quoted(text),
        Attribute::Ints(v) => list(&v.iter().map(i64::to_string).collect::<Vec<_>>()),
        Attribute::Shape(shape) => shape.to_string(),
        Attribute::Type(ty) => ty.to_string(),
        Attribute::Word(word, args) if args.is_empty() => word.clone(),
        Attribute::Word(word, args) => {
            let args: Vec<String> = args.iter().map(|&x| argument(x)).collect();
            format!("{word}({})", args.join(", "))
        }
        Attribute::Literal(l) => format!("dense<{}>{}", l.ty(), list(&elements(l))),
    }
}

/// A string in quotes; what the parser reads back as the same string.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => {
                // Writing to a String cannot fail.
                let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
