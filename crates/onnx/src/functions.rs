//! Model-local functions: calls are replaced by the functions' nodes.

use std::collections::HashMap;

use prost::Message;

use crate::attributes::{describe, node_name};
use crate::error::ImportError;
use crate::load::is_standard;
use crate::proto::{FunctionProto, GraphProto, NodeProto};

/// Deepest nesting of calls.
const MAX_DEPTH: usize = 64;
/// Most calls and nodes after inlining.
const MAX_NODES: usize = 100_000;
/// Most bytes of nodes that calls copy.
const MAX_BYTES: usize = 256 << 20;

type Key<'a> = (&'a str, &'a str, &'a str);

/// Replaces all calls in the graph. `opset` is the model's version of the standard operators.
pub(crate) fn inline(
    graph: &mut GraphProto,
    functions: &[FunctionProto],
    opset: i64,
) -> Result<(), ImportError> {
    if functions.is_empty() {
        return Ok(());
    }
    let mut table = HashMap::new();
    for function in functions {
        if table
            .insert(
                (function.domain(), function.name(), function.overload()),
                function,
            )
            .is_some()
        {
            return Err(ImportError::user(format!(
                "function \"{}\" is defined twice",
                function.name()
            )));
        }
    }
    let mut inliner = Inliner {
        functions: table,
        opset,
        stack: Vec::new(),
        nodes: Vec::new(),
        calls: 0,
        bytes: 0,
        outermost: String::new(),
    };
    for node in std::mem::take(&mut graph.node) {
        inliner.outermost = describe(&node);
        inliner.visit(node)?;
    }
    graph.node = inliner.nodes;
    Ok(())
}

struct Inliner<'a> {
    functions: HashMap<Key<'a>, &'a FunctionProto>,
    opset: i64,
    stack: Vec<&'a FunctionProto>,
    nodes: Vec<NodeProto>,
    calls: usize,
    bytes: usize,
    /// The call in the graph that is being expanded, for messages.
    outermost: String,
}

impl<'a> Inliner<'a> {
    fn visit(&mut self, node: NodeProto) -> Result<(), ImportError> {
        let function = self
            .functions
            .get(&(node.domain(), node.op_type(), node.overload()))
            .copied();
        let Some(function) = function else {
            self.count()?;
            self.nodes.push(node);
            return Ok(());
        };
        self.check(function, &node)?;
        self.count()?;
        let mut names = self.bind(function, &node);
        self.stack.push(function);
        for inner in &function.node {
            self.bytes = self.bytes.saturating_add(inner.encoded_len());
            self.visit(instantiate(inner, function, &node, &mut names))?;
        }
        self.stack.pop();
        Ok(())
    }

    fn count(&mut self) -> Result<(), ImportError> {
        self.calls += 1;
        if self.calls > MAX_NODES || self.bytes > MAX_BYTES {
            let text = format!(
                "its functions expand to too many nodes: the limits are {MAX_NODES} nodes and {MAX_BYTES} bytes"
            );
            return Err(ImportError::user(text).at(&self.outermost));
        }
        Ok(())
    }

    fn check(&self, function: &'a FunctionProto, node: &NodeProto) -> Result<(), ImportError> {
        let fail = |text: String| Err(ImportError::user(text).at(&self.outermost));
        if self.stack.iter().any(|f| std::ptr::eq(*f, function)) {
            return fail(format!(
                "function \"{}\" is recursive: it calls itself",
                function.name()
            ));
        }
        if self.stack.len() >= MAX_DEPTH {
            return fail(format!(
                "functions are nested too deeply: the limit is {MAX_DEPTH}"
            ));
        }
        if node.input.len() > function.input.len() || node.output.len() > function.output.len() {
            return fail(format!(
                "more inputs or outputs than function \"{}\" has",
                function.name()
            ));
        }
        let mut standard = function.opset_import.iter().filter(|o| is_standard(o.domain()));
        match standard.find(|o| o.version() != self.opset) {
            Some(other) => fail(format!(
                "function \"{}\" uses opset {}, the model {}",
                function.name(),
                other.version(),
                self.opset
            )),
            None => Ok(()),
        }
    }

    /// Names of the function's inputs, outputs and own values at this call.
    fn bind(&self, function: &FunctionProto, node: &NodeProto) -> HashMap<String, String> {
        let mut names = HashMap::new();
        let prefix = format!("{}#{}", node_name(node), self.calls);
        for inner in function
            .node
            .iter()
            .flat_map(|n| &n.output)
            .filter(|s| !s.is_empty())
        {
            names.insert(inner.clone(), format!("{prefix}/{inner}"));
        }
        let actual = |list: &[String], i: usize| list.get(i).cloned().unwrap_or_default();
        for (i, formal) in function.input.iter().enumerate() {
            names.insert(formal.clone(), actual(&node.input, i));
        }
        for (i, formal) in function.output.iter().enumerate() {
            let outer = actual(&node.output, i);
            if !outer.is_empty() {
                names.insert(formal.clone(), outer);
            }
        }
        names
    }
}

/// A node of a function's body at one call of it.
fn instantiate(
    inner: &NodeProto,
    function: &FunctionProto,
    call: &NodeProto,
    names: &mut HashMap<String, String>,
) -> NodeProto {
    let mut node = inner.clone();
    for name in node.input.iter_mut().chain(&mut node.output) {
        // A name that the function does not define must not capture one of the graph.
        *name = match names.get(name.as_str()) {
            Some(outer) => outer.clone(),
            None if name.is_empty() => String::new(),
            None => format!("{}:{name}", function.name()),
        };
    }
    node.name = Some(format!("{}/{}", node_name(call), node_name(inner)));
    node.attribute = inner
        .attribute
        .iter()
        .filter_map(|attribute| {
            let Some(reference) = attribute.ref_attr_name.as_deref().filter(|r| !r.is_empty()) else {
                return Some(attribute.clone());
            };
            let given = call.attribute.iter().chain(&function.attribute_proto);
            let mut value = given.into_iter().find(|a| a.name() == reference)?.clone();
            value.name = attribute.name.clone();
            Some(value)
        })
        .collect();
    node
}
