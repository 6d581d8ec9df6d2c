//! The operators that can be imported. One file a family; this file is the one list of them.

pub(crate) mod batch_norm;
mod constant;
mod conv;
mod elementwise;
mod identity;
mod integer;
mod matmul;
mod movement;
mod pad;
mod pool;
mod reduce;
mod reshape;
mod resize;
mod shape;
mod slice;
mod softmax;
mod window;

use crate::attributes::OnnxNode;
use crate::binding::Binding;
use crate::error::ImportError;
use crate::importer::Importer;
use crate::load::is_standard;
use crate::proto::NodeProto;

/// Imports one node: gives what its outputs stand for, in order.
pub(crate) type Handler = fn(&mut Importer, &OnnxNode) -> Result<Vec<Binding>, ImportError>;

/// Operator, the opset that introduced it, and its import.
const OPERATORS: &[(&str, i64, Handler)] = &[
    ("Add", 1, elementwise::add),
    ("AveragePool", 1, pool::average_pool),
    ("BatchNormalization", 1, batch_norm::batch_normalization),
    ("Cast", 1, identity::cast),
    ("CastLike", 15, identity::cast_like),
    ("Clip", 1, elementwise::clip),
    ("Concat", 1, movement::concat),
    ("Constant", 1, constant::constant),
    ("ConstantOfShape", 9, constant::constant_of_shape),
    ("Conv", 1, conv::conv),
    ("Div", 1, elementwise::div),
    ("Dropout", 1, identity::dropout),
    ("Equal", 1, integer::equal),
    ("Erf", 9, elementwise::erf),
    ("Expand", 8, movement::expand),
    ("Flatten", 1, reshape::flatten),
    ("Gather", 1, shape::gather),
    ("Gelu", 20, elementwise::gelu),
    ("Gemm", 1, matmul::gemm),
    ("GlobalAveragePool", 1, pool::global_average_pool),
    ("HardSigmoid", 1, elementwise::hard_sigmoid),
    ("HardSwish", 14, elementwise::hard_swish),
    ("Identity", 1, identity::identity),
    ("LeakyRelu", 1, elementwise::leaky_relu),
    ("LogSoftmax", 1, softmax::softmax),
    ("MatMul", 1, matmul::matmul),
    ("Max", 1, integer::max),
    ("MaxPool", 1, pool::max_pool),
    ("Min", 1, integer::min),
    ("Mul", 1, elementwise::mul),
    ("Neg", 1, elementwise::neg),
    ("Pad", 1, pad::pad),
    ("Pow", 1, elementwise::pow),
    ("Range", 11, integer::range),
    ("Reciprocal", 1, elementwise::reciprocal),
    ("ReduceMean", 1, reduce::reduce_mean),
    ("ReduceProd", 1, integer::reduce_prod),
    ("ReduceSum", 1, reduce::reduce_sum),
    ("Relu", 1, elementwise::relu),
    ("Reshape", 5, reshape::reshape),
    ("Resize", 10, resize::resize),
    ("SequenceAt", 11, slice::sequence_at),
    ("Shape", 1, shape::shape),
    ("Sigmoid", 1, elementwise::sigmoid),
    ("Size", 1, shape::size),
    ("Slice", 1, slice::slice),
    ("Softmax", 1, softmax::softmax),
    ("Split", 2, slice::split),
    ("SplitToSequence", 11, slice::split_to_sequence),
    ("Sqrt", 1, elementwise::sqrt),
    ("Squeeze", 1, reshape::squeeze),
    ("Sub", 1, elementwise::sub),
    ("Tanh", 1, elementwise::tanh),
    ("Transpose", 1, movement::transpose),
    ("Unsqueeze", 1, reshape::unsqueeze),
    ("Upsample", 7, resize::upsample),
    ("Where", 9, integer::where_),
];

/// The import of a node's operator.
pub(crate) fn find(node: &NodeProto, opset: i64) -> Result<Handler, ImportError> {
    let op = node.op_type();
    if !is_standard(node.domain()) {
        let text = format!(
            "operator {}.{op} is not a standard operator and not supported",
            node.domain()
        );
        return Err(ImportError::unsupported(text));
    }
    if matches!(op, "If" | "Loop" | "Scan" | "SequenceMap") {
        let text = format!("{op} is control flow: subgraphs are not supported (opset {opset})");
        return Err(ImportError::unsupported(text).note("export the network with fixed control flow"));
    }
    match OPERATORS.iter().find(|(name, _, _)| *name == op) {
        Some((_, since, _)) if *since > opset => Err(ImportError::user(format!(
            "operator {op} exists since opset {since}, the file uses opset {opset}"
        ))),
        Some((_, _, handler)) => Ok(*handler),
        None => Err(ImportError::unsupported(format!(
            "operator {op} (opset {opset}) is not supported"
        ))),
    }
}
