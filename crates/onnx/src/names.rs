//! Who defines and who reads a name of the file.

use std::collections::{HashMap, HashSet};

use crate::attributes::describe;
use crate::error::ImportError;
use crate::proto::{GraphProto, NodeProto};

/// Definitions and uses of names, and which nodes an output depends on.
pub(crate) struct Names<'a> {
    /// By node: whether a graph output depends on it.
    pub live: Vec<bool>,
    /// Names that nodes compute.
    computed: HashSet<&'a str>,
    /// Live readers of each name: node and input.
    readers: HashMap<&'a str, Vec<(&'a NodeProto, usize)>>,
    /// Names of graph outputs.
    outputs: HashSet<&'a str>,
}

impl<'a> Names<'a> {
    /// Analyses a graph; names that are defined twice are errors.
    pub(crate) fn new(graph: &'a GraphProto) -> Result<Names<'a>, Vec<ImportError>> {
        let mut errors = Vec::new();
        let mut definer: HashMap<&str, usize> = HashMap::new();
        let mut given: HashSet<&str> = HashSet::new();
        for name in graph.input.iter().map(|i| i.name()) {
            if !given.insert(name) {
                errors.push(ImportError::user(format!("input \"{name}\" is declared twice")));
            }
        }
        let mut initialized: HashSet<&str> = HashSet::new();
        for name in graph.initializer.iter().map(|t| t.name()) {
            if !initialized.insert(name) {
                errors.push(ImportError::user(format!(
                    "initializer \"{name}\" is defined twice"
                )));
            }
        }
        given.extend(initialized);
        for (i, node) in graph.node.iter().enumerate() {
            for name in node.output.iter().map(String::as_str).filter(|s| !s.is_empty()) {
                if given.contains(name) || definer.insert(name, i).is_some() {
                    let text = format!("its output \"{name}\" is already defined: names must be unique");
                    errors.push(ImportError::user(text).at(&describe(node)));
                }
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let outputs: HashSet<&str> = graph.output.iter().map(|o| o.name()).collect();
        let live = live_nodes(graph, &definer);
        let mut readers: HashMap<&str, Vec<(&NodeProto, usize)>> = HashMap::new();
        for (node, _) in graph.node.iter().zip(&live).filter(|(_, live)| **live) {
            for (slot, name) in node.input.iter().enumerate().filter(|(_, s)| !s.is_empty()) {
                readers.entry(name.as_str()).or_default().push((node, slot));
            }
        }
        Ok(Names {
            live,
            computed: definer.into_keys().collect(),
            readers,
            outputs,
        })
    }

    /// Live readers of a name: node and input.
    pub(crate) fn readers(&self, name: &str) -> &[(&'a NodeProto, usize)] {
        self.readers.get(name).map_or(&[], Vec::as_slice)
    }

    /// Whether a live node or a graph output reads the name.
    pub(crate) fn is_used(&self, name: &str) -> bool {
        self.readers.contains_key(name) || self.outputs.contains(name)
    }

    /// Whether a graph output has the name.
    pub(crate) fn is_output(&self, name: &str) -> bool {
        self.outputs.contains(name)
    }

    /// The error for a name that stands for nothing yet.
    pub(crate) fn undefined(&self, name: &str) -> ImportError {
        if self.computed.contains(name) {
            return ImportError::user(format!("input \"{name}\" is read before it is computed"))
                .note("the nodes form a cycle or are not in topological order");
        }
        ImportError::user(format!(
            "input \"{name}\" is missing: no input, initializer or node of the file defines it"
        ))
    }
}

fn live_nodes(graph: &GraphProto, definer: &HashMap<&str, usize>) -> Vec<bool> {
    let mut live = vec![false; graph.node.len()];
    let mut stack: Vec<&str> = graph.output.iter().map(|o| o.name()).collect();
    while let Some(name) = stack.pop() {
        let Some(&i) = definer.get(name) else { continue };
        if !std::mem::replace(&mut live[i], true) {
            stack.extend(
                graph.node[i]
                    .input
                    .iter()
                    .map(String::as_str)
                    .filter(|s| !s.is_empty()),
            );
        }
    }
    live
}
