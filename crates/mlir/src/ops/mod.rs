//! Operators as index functions, written once for all targets: a logical index to reads, arithmetic and a store.
//! How indices become loops, lanes or threads is the emitter's matter.

pub mod batch_norm;
pub mod batch_norm_backward;
mod channels;
pub mod convolution;
pub mod elementwise;
pub mod kernel;
pub mod loss;
pub mod moments;
pub mod pool;
pub mod reduce;
pub mod resize;
mod rows;
mod tiles;
pub mod update;
mod window;

use syncbn_ir::ops::Op;

use crate::LowerError;
use crate::emit::Emitter;
use crate::{cpu, gpu};
use kernel::Kernel;

/// Builds the body of one kernel. Sources and collectives have none: a step reads the former in place and
/// calls the runtime for the latter.
pub fn lower<'c>(op: &Op, k: &Kernel<'c>, e: &Emitter<'c>) -> Result<(), LowerError> {
    let bug = |message: String| LowerError::Internal { message };
    let on_gpu = e.is_device();
    match op {
        Op::Conv(c) if on_gpu => gpu::conv::forward(c, k, e).map_err(bug)?,
        Op::Conv(c) => {
            cpu::conv::forward(c, k, e).map_err(bug)?;
            if c.moments {
                moments::moments(k, &k.results[0], &k.results[1], e);
            }
        }
        Op::ConvBackwardData(c) if on_gpu => gpu::conv::backward_data(c, k, e).map_err(bug)?,
        Op::ConvBackwardData(c) => cpu::conv::backward_data(c, k, e).map_err(bug)?,
        Op::ConvBackwardWeight(c) if on_gpu => gpu::conv::backward_weight(c, k, e).map_err(bug)?,
        Op::ConvBackwardWeight(c) => cpu::conv::backward_weight(c, k, e).map_err(bug)?,
        Op::MatMul(m) if on_gpu => gpu::matmul::lower(m, k, e),
        Op::MatMul(m) => cpu::matmul::lower(m, k, e),
        Op::BatchNorm(b) if !b.training => batch_norm::inference(b, k, e),
        Op::BatchNorm(_) | Op::BatchNormBackward(_) => {
            return Err(bug(format!("{} passed the checks", op.name())));
        }
        Op::Moments(_) => moments::moments(k, &k.operands[0], &k.results[0], e),
        Op::BatchNormFinalize(b) => moments::finalize(b, k, e),
        Op::Normalize(b) => batch_norm::normalize(b, k, e),
        Op::BatchNormBackwardReduce(b) => batch_norm_backward::reduce(b, k, e),
        Op::BatchNormBackwardData(b) => batch_norm_backward::data(b, k, e),
        Op::Unary(u) => elementwise::unary(u, k, e),
        Op::UnaryBackward(u) => elementwise::unary_backward(u, k, e),
        Op::Binary(b) => elementwise::binary(b, k, e),
        Op::Reduce(r) => reduce::lower(r, k, e),
        Op::Expand(_) | Op::Cast(_) => elementwise::copy(k, e),
        Op::Reshape(_) | Op::Identity(_) | Op::Dropout(_) => elementwise::reshape(k, e),
        Op::Transpose(t) => elementwise::transpose(t, k, e),
        Op::Concat(c) => elementwise::concat(c, k, e),
        Op::Slice(s) => elementwise::slice(s, k, e),
        Op::Pad(p) => elementwise::pad(p, k, e),
        Op::MaxPool(p) => pool::max_forward(p, k, e),
        Op::MaxPoolBackward(p) => pool::max_backward(p, k, e),
        Op::AveragePool(p) => pool::average_forward(p, k, e),
        Op::AveragePoolBackward(p) => pool::average_backward(p, k, e),
        Op::Resize(r) => resize::forward(r, k, e),
        Op::ResizeBackward(r) => resize::backward(r, k, e),
        Op::SoftmaxCrossEntropy(_) => loss::cross_entropy(k, e),
        Op::SoftmaxCrossEntropyBackward(_) => loss::cross_entropy_backward(k, e),
        Op::MeanSquaredError(_) => loss::squared_error(k, e),
        Op::MeanSquaredErrorBackward(_) => loss::squared_error_backward(k, e),
        Op::Input(_) | Op::Parameter(_) | Op::Statistic(_) | Op::Constant(_) | Op::AllReduce(_) => {
            return Err(bug(format!("{} has no kernel", op.name())));
        }
    }
    Ok(())
}
