//! Building small ONNX networks with random weights.

use prost::Message;
use syncbn_ir::training::Generator;
use syncbn_onnx::proto::attribute_proto::AttributeType;
use syncbn_onnx::proto::tensor_shape_proto::{Dimension, dimension};
use syncbn_onnx::proto::type_proto;
use syncbn_onnx::proto::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto,
    TypeProto, ValueInfoProto,
};

/// ONNX's number for float32.
const FLOAT: i32 = 1;
/// ONNX's number for int64.
const INT64: i32 = 7;

/// A node's attribute.
pub enum Attribute<'a> {
    /// An integer.
    Int(i64),
    /// Integers.
    Ints(&'a [i64]),
    /// A float.
    Float(f32),
    /// Text.
    Text(&'a str),
}

/// Attributes of a node.
pub type Attributes<'a> = &'a [(&'a str, Attribute<'a>)];

/// A network under construction. Values are named after what makes them: `conv1`, `conv1.weight`.
pub struct Net {
    opset: i64,
    graph: GraphProto,
    random: Generator,
    /// Whether weights become graph inputs without values.
    weight_free: bool,
    count: usize,
}

impl Net {
    /// A network with the input `x` of the given sizes after the batch.
    pub fn new(sizes: &[i64]) -> Net {
        Net {
            opset: 17,
            graph: GraphProto {
                name: Some("net".to_string()),
                input: vec![value_info("x", Some(sizes))],
                ..Default::default()
            },
            random: Generator(7),
            weight_free: false,
            count: 0,
        }
    }

    /// Another version of the operator set; 17 is the default.
    pub fn opset(mut self, opset: i64) -> Net {
        self.opset = opset;
        self
    }

    /// Leaves all weights out: they become graph inputs.
    pub fn weight_free(mut self) -> Net {
        self.weight_free = true;
        self
    }

    fn name(&mut self, op: &str) -> String {
        self.count += 1;
        format!("{}{}", op.to_lowercase(), self.count)
    }

    /// A node with one output, which is named after it.
    pub fn node(&mut self, op: &str, inputs: &[&str], attributes: Attributes) -> String {
        let name = self.name(op);
        self.named(op, &name, inputs, attributes)
    }

    /// A node with several outputs.
    pub fn nodes(&mut self, op: &str, inputs: &[&str], count: usize, attributes: Attributes) -> Vec<String> {
        let name = self.name(op);
        let outputs: Vec<String> = (0..count).map(|i| format!("{name}.{i}")).collect();
        self.push(op, &name, inputs, outputs.clone(), attributes);
        outputs
    }

    fn named(&mut self, op: &str, name: &str, inputs: &[&str], attributes: Attributes) -> String {
        let output = vec![name.to_string()];
        self.push(op, name, inputs, output, attributes);
        name.to_string()
    }

    fn push(&mut self, op: &str, name: &str, inputs: &[&str], output: Vec<String>, attributes: Attributes) {
        self.graph.node.push(NodeProto {
            op_type: Some(op.to_string()),
            name: Some(name.to_string()),
            input: inputs.iter().map(|i| i.to_string()).collect(),
            output,
            attribute: attributes
                .iter()
                .map(|(name, value)| attribute(name, value))
                .collect(),
            ..Default::default()
        });
    }

    /// A float initializer.
    pub fn floats(&mut self, name: &str, dims: &[i64], values: &[f64]) -> String {
        if self.weight_free {
            let mut info = value_info(name, Some(&dims[1..]));
            if let Some(type_proto::Value::TensorType(t)) = info.r#type.as_mut().unwrap().value.as_mut() {
                t.shape.as_mut().unwrap().dim[0].value = Some(dimension::Value::DimValue(dims[0]));
            }
            self.graph.input.push(info);
            return name.to_string();
        }
        let bytes = values.iter().flat_map(|&v| (v as f32).to_le_bytes());
        self.graph.initializer.push(TensorProto {
            name: Some(name.to_string()),
            dims: dims.to_vec(),
            data_type: Some(FLOAT),
            raw_data: Some(bytes.collect()),
            ..Default::default()
        });
        name.to_string()
    }

    /// An int64 initializer.
    pub fn longs(&mut self, values: &[i64]) -> String {
        let name = self.name("constant");
        self.graph.initializer.push(TensorProto {
            name: Some(name.clone()),
            dims: vec![values.len() as i64],
            data_type: Some(INT64),
            int64_data: values.to_vec(),
            ..Default::default()
        });
        name
    }

    /// An initializer of normal values around `mean`.
    pub fn normal(&mut self, name: &str, dims: &[i64], mean: f64, deviation: f64) -> String {
        let count = dims.iter().product::<i64>();
        let values: Vec<f64> = (0..count)
            .map(|_| mean + deviation * self.random.normal())
            .collect();
        self.floats(name, dims, &values)
    }

    fn weight(&mut self, name: &str, dims: &[i64]) -> String {
        let fan_in: i64 = dims[1..].iter().product();
        self.normal(name, dims, 0.0, (2.0 / fan_in as f64).sqrt())
    }

    /// A convolution without bias; `dims` are those of its weight.
    pub fn conv(&mut self, x: &str, dims: &[i64], attributes: Attributes) -> String {
        let name = self.name("conv");
        let weight = self.weight(&format!("{name}.weight"), dims);
        self.named("Conv", &name, &[x, &weight], attributes)
    }

    /// A convolution with bias.
    pub fn conv_bias(&mut self, x: &str, dims: &[i64], attributes: Attributes) -> String {
        let name = self.name("conv");
        let weight = self.weight(&format!("{name}.weight"), dims);
        let bias = self.normal(&format!("{name}.bias"), &dims[..1], 0.0, 0.3);
        self.named("Conv", &name, &[x, &weight, &bias], attributes)
    }

    /// The four tensors of a BatchNorm.
    pub fn bn_tensors(&mut self, name: &str, channels: i64) -> [String; 4] {
        let positive = |random: &mut Generator, low: f64, high: f64| -> Vec<f64> {
            (0..channels)
                .map(|_| low + (high - low) * random.uniform())
                .collect()
        };
        let scale = positive(&mut self.random, 0.5, 1.5);
        let variance = positive(&mut self.random, 0.5, 2.0);
        [
            self.floats(&format!("{name}.weight"), &[channels], &scale),
            self.normal(&format!("{name}.bias"), &[channels], 0.0, 0.3),
            self.normal(&format!("{name}.running_mean"), &[channels], 0.0, 0.3),
            self.floats(&format!("{name}.running_var"), &[channels], &variance),
        ]
    }

    /// A BatchNorm over `channels` channels.
    pub fn bn(&mut self, x: &str, channels: i64) -> String {
        let name = self.name("bn");
        let tensors = self.bn_tensors(&name, channels);
        self.bn_with(x, &name, &tensors)
    }

    /// A BatchNorm with given tensors, whose node is `name`.
    pub fn bn_with(&mut self, x: &str, name: &str, tensors: &[String; 4]) -> String {
        let [scale, bias, mean, var] = tensors;
        self.named("BatchNormalization", name, &[x, scale, bias, mean, var], &[])
    }

    /// A BatchNorm in training mode, with three outputs.
    pub fn bn_training_mode(&mut self, x: &str, channels: i64) -> String {
        let name = self.name("bn");
        let [scale, bias, mean, var] = self.bn_tensors(&name, channels);
        let outputs = ["", "_mean", "_var"].map(|end| format!("{name}{end}")).to_vec();
        let attributes = [("training_mode", Attribute::Int(1))];
        self.push(
            "BatchNormalization",
            &name,
            &[x, &scale, &bias, &mean, &var],
            outputs,
            &attributes,
        );
        name
    }

    /// Convolution, BatchNorm, ReLU.
    pub fn conv_bn_relu(&mut self, x: &str, dims: &[i64], attributes: Attributes) -> String {
        let x = self.conv(x, dims, attributes);
        let x = self.bn(&x, dims[0]);
        self.node("Relu", &[&x], &[])
    }

    /// SiLU, as exporters write it.
    pub fn silu(&mut self, x: &str) -> String {
        let gate = self.node("Sigmoid", &[x], &[]);
        self.node("Mul", &[x, &gate], &[])
    }

    /// A linear layer.
    pub fn linear(&mut self, x: &str, inputs: i64, outputs: i64) -> String {
        let name = self.name("linear");
        let weight = self.weight(&format!("{name}.weight"), &[outputs, inputs]);
        let bias = self.normal(&format!("{name}.bias"), &[outputs], 0.0, 0.1);
        let attributes = [("transB", Attribute::Int(1))];
        self.named("Gemm", &name, &[x, &weight, &bias], &attributes)
    }

    /// Global average pooling and a linear layer.
    pub fn head(&mut self, x: &str, channels: i64, classes: i64) -> String {
        let x = self.node("GlobalAveragePool", &[x], &[]);
        let x = self.node("Flatten", &[&x], &[]);
        self.linear(&x, channels, classes)
    }

    /// The file, with these values as outputs.
    pub fn finish(mut self, outputs: &[&str]) -> Vec<u8> {
        self.graph.output = outputs.iter().map(|name| value_info(name, None)).collect();
        let model = ModelProto {
            ir_version: Some(8),
            opset_import: vec![OperatorSetIdProto {
                domain: None,
                version: Some(self.opset),
            }],
            graph: Some(self.graph),
            ..Default::default()
        };
        model.encode_to_vec()
    }
}

/// A float value: sizes after a symbolic batch, or no shape.
fn value_info(name: &str, sizes: Option<&[i64]>) -> ValueInfoProto {
    let dimension = |value| Dimension {
        value: Some(value),
        ..Default::default()
    };
    let shape = sizes.map(|sizes| {
        let batch = dimension(dimension::Value::DimParam("batch".to_string()));
        let rest = sizes.iter().map(|&n| dimension(dimension::Value::DimValue(n)));
        TensorShapeProto {
            dim: std::iter::once(batch).chain(rest).collect(),
        }
    });
    let tensor = type_proto::Tensor {
        elem_type: Some(FLOAT),
        shape,
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

fn attribute(name: &str, value: &Attribute) -> AttributeProto {
    let mut attribute = AttributeProto {
        name: Some(name.to_string()),
        ..Default::default()
    };
    let kind = match value {
        Attribute::Int(i) => {
            attribute.i = Some(*i);
            AttributeType::Int
        }
        Attribute::Ints(i) => {
            attribute.ints = i.to_vec();
            AttributeType::Ints
        }
        Attribute::Float(f) => {
            attribute.f = Some(*f);
            AttributeType::Float
        }
        Attribute::Text(text) => {
            attribute.s = Some(text.as_bytes().to_vec());
            AttributeType::String
        }
    };
    attribute.r#type = Some(kind as i32);
    attribute
}
