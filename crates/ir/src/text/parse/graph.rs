//! The graph around the operators: nodes, their names and results, and the outputs.

use super::node::Typed;
use super::{Parsed, Parser};
use crate::graph::{GraphError, NodeId, Output, OutputKind, Value};
use crate::text::lex::Kind;

impl Parser {
    pub(super) fn graph(&mut self) -> Parsed<()> {
        self.expect_word("graph")?;
        self.graph.name = self.text("the graph's name in quotes")?;
        self.expect('{')?;
        while !self.is_word("return") {
            self.node()?;
        }
        self.bump();
        while !self.accept('}') {
            self.output()?;
            if !self.accept(',') && *self.kind() != Kind::Punctuation('}') {
                return self.expected("`,` or `}`");
            }
        }
        match self.kind() {
            Kind::End => Ok(()),
            _ => self.expected("the end of the text"),
        }
    }

    fn output(&mut self) -> Parsed<()> {
        let kinds = [
            OutputKind::Output,
            OutputKind::Loss,
            OutputKind::Gradient,
            OutputKind::Statistic,
        ];
        let at = self.next;
        let word = self.word("output, loss, gradient or statistic")?;
        let Some(kind) = kinds.into_iter().find(|k| k.name() == word) else {
            return self.error_at(
                at,
                format!("expected output, loss, gradient or statistic, found `{word}`"),
            );
        };
        let name = match self.kind() {
            Kind::Text(_) => self.text("a name")?,
            _ => String::new(),
        };
        let value = self.value()?;
        self.graph.outputs.push(Output { kind, name, value });
        Ok(())
    }

    pub(super) fn value(&mut self) -> Parsed<Value> {
        let at = self.next;
        let Kind::Value(name) = self.kind().clone() else {
            return self.expected("a value");
        };
        self.next += 1;
        let Some(&node) = self.nodes.get(&name) else {
            return self.error_at(at, format!("%{name} is not defined above this line"));
        };
        let slot = if self.accept('#') {
            self.number_as("the number of a result")?
        } else {
            0
        };
        let value = Value { node, slot };
        if self.graph.try_type(value).is_none() {
            let count = self.graph.node(node).outputs.len();
            return self.error_at(at, format!("%{name} has {count} results, so no result #{slot}"));
        }
        Ok(value)
    }

    fn node(&mut self) -> Parsed<()> {
        let at = self.next;
        let Kind::Value(name) = self.kind().clone() else {
            return self.expected("a node or `return`");
        };
        self.next += 1;
        if self.nodes.contains_key(&name) {
            return self.error_at(at, format!("%{name} is defined twice"));
        }
        let count: usize = if self.accept(':') {
            self.number_as("a number of results")?
        } else {
            1
        };
        self.expect('=')?;
        let at = self.next;
        let op = self.word("an operator")?;
        let parts = match op.as_str() {
            "input" => self.input()?,
            "parameter" => self.parameter()?,
            "statistic" => self.statistic()?,
            "constant" => self.constant()?,
            _ => self.operation(at, &op)?,
        };
        let found = parts.results.types.len();
        if found != count {
            return self.error_at(at, format!("expected {count} result types, found {found}"));
        }
        let id = match self.graph.add(parts.op, &parts.results.label, &parts.operands) {
            Ok(id) => id,
            Err(GraphError::Type { message, .. }) => return self.error_at(at, message),
            Err(other) => return self.error_at(at, other.to_string()),
        };
        let node = self.graph.node_mut(id);
        (node.schedule, node.workspace) = (parts.schedule, parts.results.workspace);
        self.set_results(at, id, parts.results.types)?;
        self.nodes.insert(name, id);
        Ok(())
    }

    fn set_results(&mut self, at: usize, id: NodeId, results: Vec<Typed>) -> Parsed<()> {
        let inferred = self.graph.node(id).outputs.len();
        if results.len() != inferred {
            let count = results.len();
            return self.error_at(at, format!("the operator has {inferred} results, not {count}"));
        }
        for (slot, (ty, location)) in results.into_iter().enumerate() {
            let found = self.graph.ty(Value { node: id, slot });
            if found.dtype != ty.dtype || found.shape != ty.shape {
                return self.error_at(at, format!("result {slot} has type {found}, not {ty} as written"));
            }
            let output = &mut self.graph.node_mut(id).outputs[slot];
            output.ty = ty;
            output.location = location;
        }
        Ok(())
    }
}
