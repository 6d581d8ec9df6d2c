//! Operators as index functions, written once for all targets: a logical index to reads, arithmetic and a store.
//! How indices become loops, lanes or threads is the emitter's matter.

pub mod batch_norm;
pub mod batch_norm_backward;
mod channels;
mod concat;
pub mod convolution;
pub mod elementwise;
pub mod kernel;
pub mod loss;
pub mod moments;
pub mod parts;
pub mod pool;
pub mod reduce;
pub mod resize;
pub mod rows;
pub mod stage;
pub mod target;
mod tiles;
pub mod update;
pub mod window;

use syncbn_ir::ops::Op;

use crate::emit::Emitter;
use crate::error::LowerError;
use kernel::Kernel;
use stage::Stage;
use target::{Target, Types};

fn one<'a>(emit: impl for<'c> Fn(&Kernel<'c>, &Emitter<'c>) + 'a) -> Vec<Stage<'a>> {
    vec![Stage::new(emit)]
}

/// The stages of an operator. Sources and collectives have none: a step reads the former in place and calls the runtime
/// for the latter.
pub fn stages<'a>(op: &'a Op, target: &dyn Target, types: &Types) -> Result<Vec<Stage<'a>>, LowerError> {
    let bug = |message: String| LowerError::Internal { message };
    Ok(match op {
        Op::Conv(c) => target.conv(c, types).map_err(bug)?,
        Op::ConvBackwardData(c) => target.conv_backward_data(c, types).map_err(bug)?,
        Op::ConvBackwardWeight(c) => target.conv_backward_weight(c, types).map_err(bug)?,
        Op::MatMul(m) => target.matmul(m, types).map_err(bug)?,
        Op::BatchNorm(b) if !b.training => one(move |k, e| batch_norm::inference(b, k, e)),
        Op::BatchNorm(_) | Op::BatchNormBackward(_) => {
            return Err(bug(format!("{} passed the checks", op.name())));
        }
        Op::Moments(_) => one(move |k, e| moments::moments(k, &k.operands[0], &k.results[0], e)),
        Op::BatchNormFinalize(b) => one(move |k, e| moments::finalize(b, k, e)),
        Op::Normalize(b) => one(move |k, e| batch_norm::normalize(b, k, e)),
        Op::BatchNormBackwardReduce(b) => one(move |k, e| batch_norm_backward::reduce(b, k, e)),
        Op::BatchNormBackwardData(b) => one(move |k, e| batch_norm_backward::data(b, k, e)),
        Op::Unary(u) => one(move |k, e| elementwise::unary(u, k, e)),
        Op::UnaryBackward(u) => one(move |k, e| elementwise::unary_backward(u, k, e)),
        Op::Binary(b) => one(move |k, e| elementwise::binary(b, k, e)),
        Op::Reduce(r) => one(move |k, e| reduce::lower(r, k, e)),
        Op::Expand(_) | Op::Cast(_) => one(elementwise::copy),
        Op::Identity(_) => target.identity(types).map_err(bug)?,
        Op::Reshape(_) | Op::Dropout(_) => one(elementwise::reshape),
        Op::Transpose(t) => one(move |k, e| elementwise::transpose(t, k, e)),
        Op::Concat(c) => one(move |k, e| concat::concat(c, k, e)),
        Op::Slice(s) => one(move |k, e| elementwise::slice(s, k, e)),
        Op::Pad(p) => one(move |k, e| elementwise::pad(p, k, e)),
        Op::MaxPool(p) => one(move |k, e| pool::max_forward(p, k, e)),
        Op::MaxPoolBackward(p) => one(move |k, e| pool::max_backward(p, k, e)),
        Op::AveragePool(p) => one(move |k, e| pool::average_forward(p, k, e)),
        Op::AveragePoolBackward(p) => one(move |k, e| pool::average_backward(p, k, e)),
        Op::Resize(r) => one(move |k, e| resize::forward(r, k, e)),
        Op::ResizeBackward(r) => one(move |k, e| resize::backward(r, k, e)),
        Op::SoftmaxCrossEntropy(_) => vec![Stage::fallible(loss::cross_entropy)],
        Op::SoftmaxCrossEntropyBackward(_) => one(loss::cross_entropy_backward),
        Op::MeanSquaredError(_) => one(loss::squared_error),
        Op::MeanSquaredErrorBackward(_) => one(loss::squared_error_backward),
        Op::Input(_) | Op::Parameter(_) | Op::Statistic(_) | Op::Constant(_) | Op::AllReduce(_) => {
            return Err(bug(format!("{} has no kernel", op.name())));
        }
    })
}
