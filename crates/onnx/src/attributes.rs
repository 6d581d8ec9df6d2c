//! A node of the file with typed access to its attributes.

use crate::error::ImportError;
use crate::proto::attribute_proto::AttributeType;
use crate::proto::{AttributeProto, NodeProto, TensorProto};

/// A node being imported.
pub(crate) struct OnnxNode<'a> {
    /// The node itself.
    pub proto: &'a NodeProto,
    /// Name for the graph's node.
    pub name: String,
    /// Version of the standard operator set.
    pub opset: i64,
}

/// A node's name, or one made of its operator and first output.
pub(crate) fn node_name(node: &NodeProto) -> String {
    if !node.name().is_empty() {
        return node.name().to_string();
    }
    let output = node.output.iter().find(|o| !o.is_empty());
    format!("{}_{}", node.op_type(), output.map_or("", |o| o.as_str()))
}

/// `node "bn1" (BatchNormalization)`
pub(crate) fn describe(node: &NodeProto) -> String {
    format!("node \"{}\" ({})", node_name(node), node.op_type())
}

impl<'a> OnnxNode<'a> {
    pub(crate) fn new(proto: &'a NodeProto, opset: i64) -> OnnxNode<'a> {
        OnnxNode {
            proto,
            name: node_name(proto),
            opset,
        }
    }

    /// Name of input `i`, if it is given.
    pub(crate) fn input(&self, i: usize) -> Option<&'a str> {
        self.proto
            .input
            .get(i)
            .map(String::as_str)
            .filter(|s| !s.is_empty())
    }

    /// Number of inputs, omitted ones at the end not counted.
    pub(crate) fn inputs(&self) -> usize {
        self.proto
            .input
            .iter()
            .rposition(|s| !s.is_empty())
            .map_or(0, |i| i + 1)
    }

    /// Checks the number of inputs.
    pub(crate) fn expect_inputs(&self, least: usize, most: usize) -> Result<(), ImportError> {
        let found = self.inputs();
        if (least..=most).contains(&found) {
            return Ok(());
        }
        let expected = if least == most {
            least.to_string()
        } else {
            format!("{least} to {most}")
        };
        Err(ImportError::user(format!(
            "expected {expected} inputs, found {found}"
        )))
    }

    fn attribute(&self, name: &str, kind: AttributeType) -> Result<Option<&'a AttributeProto>, ImportError> {
        let Some(attribute) = self.proto.attribute.iter().find(|a| a.name() == name) else {
            return Ok(None);
        };
        // Files of IR version 1 may leave the type out.
        if attribute.r#type() != kind && attribute.r#type() != AttributeType::Undefined {
            return Err(ImportError::user(format!(
                "attribute {name} has type {}, expected {}",
                attribute.r#type().as_str_name().to_lowercase(),
                kind.as_str_name().to_lowercase()
            )));
        }
        Ok(Some(attribute))
    }

    /// Whether the attribute is given, whatever its type.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.proto.attribute.iter().any(|a| a.name() == name)
    }

    /// An integer attribute.
    pub(crate) fn int(&self, name: &str) -> Result<Option<i64>, ImportError> {
        Ok(self.attribute(name, AttributeType::Int)?.map(|a| a.i()))
    }

    /// An integer attribute that is 0 or 1.
    pub(crate) fn flag(&self, name: &str, default: bool) -> Result<bool, ImportError> {
        match self.int(name)? {
            None => Ok(default),
            Some(0) => Ok(false),
            Some(1) => Ok(true),
            Some(v) => Err(ImportError::user(format!(
                "attribute {name} is {v}, expected 0 or 1"
            ))),
        }
    }

    /// A float attribute.
    pub(crate) fn float(&self, name: &str) -> Result<Option<f32>, ImportError> {
        Ok(self.attribute(name, AttributeType::Float)?.map(|a| a.f()))
    }

    /// A list of integers.
    pub(crate) fn ints(&self, name: &str) -> Result<Option<&'a [i64]>, ImportError> {
        Ok(self
            .attribute(name, AttributeType::Ints)?
            .map(|a| a.ints.as_slice()))
    }

    /// A list of floats.
    pub(crate) fn floats(&self, name: &str) -> Result<Option<&'a [f32]>, ImportError> {
        Ok(self
            .attribute(name, AttributeType::Floats)?
            .map(|a| a.floats.as_slice()))
    }

    /// A text attribute.
    pub(crate) fn text(&self, name: &str) -> Result<Option<&'a str>, ImportError> {
        let Some(attribute) = self.attribute(name, AttributeType::String)? else {
            return Ok(None);
        };
        let text = std::str::from_utf8(attribute.s());
        text.map(Some)
            .map_err(|_| ImportError::user(format!("attribute {name} is not UTF-8 text")))
    }

    /// A tensor attribute.
    pub(crate) fn tensor(&self, name: &str) -> Result<Option<&'a TensorProto>, ImportError> {
        Ok(self
            .attribute(name, AttributeType::Tensor)?
            .and_then(|a| a.t.as_ref()))
    }

    /// A list of sizes, each at least `least`; `length` is their number if it is known.
    pub(crate) fn sizes(
        &self,
        name: &str,
        length: Option<usize>,
        least: i64,
    ) -> Result<Option<Vec<usize>>, ImportError> {
        let Some(list) = self.ints(name)? else {
            return Ok(None);
        };
        if length.is_some_and(|n| n != list.len()) {
            return Err(ImportError::user(format!(
                "attribute {name} has {} values, expected {}",
                list.len(),
                length.unwrap_or(0)
            )));
        }
        let size = |&v: &i64| usize::try_from(v).ok().filter(|_| v >= least);
        let sizes: Option<Vec<usize>> = list.iter().map(size).collect();
        match sizes {
            Some(sizes) => Ok(Some(sizes)),
            None if least > 0 => Err(ImportError::user(format!(
                "attribute {name} is {list:?}: must be positive"
            ))),
            None => Err(ImportError::user(format!(
                "attribute {name} is {list:?}: negative values"
            ))),
        }
    }
}

/// An axis, counted from the end when it is negative.
pub(crate) fn axis(name: &str, axis: i64, rank: usize) -> Result<usize, ImportError> {
    let from_end = if axis < 0 {
        axis.checked_add(rank as i64)
    } else {
        Some(axis)
    };
    let found = from_end
        .and_then(|a| usize::try_from(a).ok())
        .filter(|&a| a < rank);
    found.ok_or_else(|| ImportError::user(format!("{name} {axis} is no axis of a value of rank {rank}")))
}
