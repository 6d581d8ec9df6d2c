//! Building small models.

use syncbn_onnx::proto::attribute_proto::AttributeType;
use syncbn_onnx::proto::tensor_shape_proto::{Dimension, dimension};
use syncbn_onnx::proto::type_proto;
use syncbn_onnx::proto::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto,
    TypeProto, ValueInfoProto,
};

/// A size, or a symbol for sizes below 1.
pub fn info(name: &str, elem_type: i32, dims: &[i64]) -> ValueInfoProto {
    let dim = dims.iter().map(|&d| Dimension {
        value: Some(match d {
            1.. => dimension::Value::DimValue(d),
            _ => dimension::Value::DimParam(format!("s{}", -d)),
        }),
        ..Default::default()
    });
    let tensor = type_proto::Tensor {
        elem_type: Some(elem_type),
        shape: Some(TensorShapeProto { dim: dim.collect() }),
    };
    ValueInfoProto {
        name: Some(name.to_string()),
        r#type: Some(TypeProto {
            value: Some(type_proto::Value::TensorType(tensor)),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// A float tensor.
pub fn floats(name: &str, dims: &[i64], values: &[f32]) -> TensorProto {
    TensorProto {
        name: Some(name.to_string()),
        dims: dims.to_vec(),
        data_type: Some(1),
        raw_data: Some(values.iter().flat_map(|v| v.to_le_bytes()).collect()),
        ..Default::default()
    }
}

/// A float tensor with `step * i` at position `i`.
pub fn ramp(name: &str, dims: &[i64], step: f32) -> TensorProto {
    let values: Vec<f32> = (0..dims.iter().product::<i64>())
        .map(|i| i as f32 * step + 0.5)
        .collect();
    floats(name, dims, &values)
}

/// An int64 tensor.
pub fn longs(name: &str, dims: &[i64], values: &[i64]) -> TensorProto {
    TensorProto {
        name: Some(name.to_string()),
        dims: dims.to_vec(),
        data_type: Some(7),
        int64_data: values.to_vec(),
        ..Default::default()
    }
}

fn strings(words: &str) -> Vec<String> {
    words
        .split(' ')
        .map(|w| if w == "_" { String::new() } else { w.to_string() })
        .collect()
}

/// A node whose inputs and outputs are separated by blanks; `_` is an omitted one.
pub fn node(op: &str, inputs: &str, outputs: &str) -> NodeProto {
    NodeProto {
        op_type: Some(op.to_string()),
        name: Some(format!("{}_node", outputs.split(' ').next().unwrap_or_default())),
        input: if inputs.is_empty() {
            Vec::new()
        } else {
            strings(inputs)
        },
        output: strings(outputs),
        ..Default::default()
    }
}

fn attribute(name: &str, kind: AttributeType) -> AttributeProto {
    AttributeProto {
        name: Some(name.to_string()),
        r#type: Some(kind as i32),
        ..Default::default()
    }
}

/// Attributes of a node, by chaining.
pub trait With: Sized {
    /// An integer.
    fn int(self, name: &str, value: i64) -> Self;
    /// A list of integers.
    fn ints(self, name: &str, values: &[i64]) -> Self;
    /// A float.
    fn float(self, name: &str, value: f32) -> Self;
    /// A text.
    fn text(self, name: &str, value: &str) -> Self;
    /// A tensor.
    fn tensor(self, name: &str, value: TensorProto) -> Self;
}

impl With for NodeProto {
    fn int(mut self, name: &str, value: i64) -> Self {
        self.attribute.push(AttributeProto {
            i: Some(value),
            ..attribute(name, AttributeType::Int)
        });
        self
    }
    fn ints(mut self, name: &str, values: &[i64]) -> Self {
        self.attribute.push(AttributeProto {
            ints: values.to_vec(),
            ..attribute(name, AttributeType::Ints)
        });
        self
    }
    fn float(mut self, name: &str, value: f32) -> Self {
        self.attribute.push(AttributeProto {
            f: Some(value),
            ..attribute(name, AttributeType::Float)
        });
        self
    }
    fn text(mut self, name: &str, value: &str) -> Self {
        self.attribute.push(AttributeProto {
            s: Some(value.as_bytes().to_vec()),
            ..attribute(name, AttributeType::String)
        });
        self
    }
    fn tensor(mut self, name: &str, value: TensorProto) -> Self {
        self.attribute.push(AttributeProto {
            t: Some(value),
            ..attribute(name, AttributeType::Tensor)
        });
        self
    }
}

/// A model with one output `y`, whose shape is not declared beyond its rank.
pub fn model(opset: i64, input: &[i64], initializers: Vec<TensorProto>, nodes: Vec<NodeProto>) -> ModelProto {
    let mut output = info("y", 1, &[]);
    if let Some(type_proto::Value::TensorType(t)) = output.r#type.as_mut().and_then(|t| t.value.as_mut()) {
        t.shape = None;
    }
    ModelProto {
        ir_version: Some(8),
        opset_import: vec![OperatorSetIdProto {
            domain: None,
            version: Some(opset),
        }],
        graph: Some(GraphProto {
            name: Some("net".to_string()),
            node: nodes,
            initializer: initializers,
            input: vec![info("x", 1, input)],
            output: vec![output],
            ..Default::default()
        }),
        ..Default::default()
    }
}
