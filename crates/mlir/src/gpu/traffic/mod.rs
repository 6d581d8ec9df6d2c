//! What a launch moves and computes: a count from the types of its operator, and what the lowering says of the stage.
//!
//! Memory is counted as if caches were perfect within a launch and empty before it: a launch reads each byte once,
//! however many threads take it, and finds nothing that an earlier one left. Of an operand only what is used counts: the
//! pixels that some window covers, the part that is cut out.

mod sizes;

use syncbn_ir::ops::{Op, Window};
use syncbn_ir::{Layout, TensorType};

use crate::emit::{Cost, Share, UNROLLED};
use crate::host::Call;
use sizes::Sizes;

/// What a launch moves and computes.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Traffic {
    /// Bytes that it reads, each once.
    pub read: u64,
    /// Bytes that it writes.
    pub written: u64,
    /// Bytes that it could not do without: of operands and results, each once for the operator, and of nothing else.
    pub least: u64,
    /// Additions, multiplications, divisions and evaluations of functions; a multiply-add is two.
    pub flop: u64,
    /// Bytes that a thread asks for at once; 0 where [`Cost::tiles`] says what a block does.
    pub at_once: u64,
}

/// Operations for an element: mean in two parts and deviation, then scale and bias.
const STANDARDISE: u64 = 3;
const AFFINE: u64 = 2;
/// A term of the two sums of moments, and of those of BatchNorm's backward pass.
const MOMENTS: u64 = 4;
const BACKWARD_SUMS: u64 = 3;
/// The gradient for an element, from the sums.
const BACKWARD_DATA: u64 = 5;
/// A derivative, and the product with what flows back.
const DERIVATIVE: u64 = 2;
/// Of a channel: mean, variance and inverse deviation, and both running statistics.
const FINALIZE: u64 = 15;
/// Of a logit: largest, difference, exponential, sum.
const SOFTMAX: u64 = 4;

/// Bytes that a load brings to the cache at least: a fact of these GPUs (CUDA C++ Best Practices Guide, coalesced
/// access), and no constant of a model of time.
const SECTOR: u64 = 32;

/// What an operator as a whole moves and computes.
#[derive(Debug, Clone, Copy)]
struct Whole {
    /// Bytes of operands.
    read: u64,
    /// Bytes of results that the stage that reads the operands writes, where there are several stages.
    early: u64,
    /// Bytes of results that the last stage writes.
    late: u64,
    flop: u64,
    /// Loads of an operand that a thread has under way at once.
    loads: u64,
}

impl Sizes<'_> {
    /// All operands and results once, the results in the last stage.
    fn once(&self, flop: u64) -> Whole {
        Whole {
            read: self.operands(),
            early: 0,
            late: self.results(),
            flop,
            loads: 1,
        }
    }

    fn whole(&self, op: &Op, cost: &Cost) -> Whole {
        let [x, y] = self.elements();
        let moves = self.once(0);
        match op {
            // Moments are taken as tensor cores' results are stored, or of the result by stages of their own.
            Op::Conv(_) if cost.of_result => Whole {
                read: self.bytes_of(self.result(0)),
                early: 0,
                late: self.bytes_of(self.result(1)),
                flop: MOMENTS * y,
                loads: 1,
            },
            Op::Conv(conv) => {
                let window = self.operand(1).and_then(|w| conv.window(w).ok());
                let skipped = window.map_or(0, |window| self.not_covered(&window, self.result(0)));
                let beside = self.call.operands as u64 - 2 + u64::from(conv.activation.is_some());
                let taken = if cost.share == Share::Partial { MOMENTS } else { 0 };
                Whole {
                    read: self.operands() - skipped,
                    early: self.bytes_of(self.result(0)),
                    late: match cost.share {
                        Share::Merge => self.bytes_of(self.result(1)),
                        Share::Whole | Share::Weights | Share::Partial => 0,
                    },
                    flop: self.convolution(self.result(0), self.operand(1)) + (beside + taken) * y,
                    loads: 1,
                }
            }
            Op::ConvBackwardData(_) => self.once(self.convolution(self.operand(0), self.operand(1))),
            Op::ConvBackwardWeight(conv) => {
                let once = self.once(self.convolution(self.operand(1), self.result(0)));
                Whole {
                    read: once.read - self.not_covered(&conv.window(), self.operand(1)),
                    ..once
                }
            }
            Op::MatMul(op) => self.once(self.matrix_product(op)),
            Op::BatchNorm(_) | Op::BatchNormBackward(_) => self.once((STANDARDISE + AFFINE) * x),
            Op::Moments(_) => self.once(MOMENTS * x),
            // A channel has two moments.
            Op::BatchNormFinalize(_) => Whole {
                loads: 2,
                ..self.once(FINALIZE * self.elements_of(self.result(1)))
            },
            Op::Normalize(op) => {
                let beside = u64::from(self.operand(5).is_some()) + u64::from(op.activation.is_some());
                self.once((STANDARDISE + AFFINE + beside) * x)
            }
            Op::BatchNormBackwardReduce(op) => {
                let again = self.recomputed(op.activation.is_some(), self.operand(6).is_some());
                Whole {
                    read: self.operands(),
                    early: self.bytes_of(self.result(1)),
                    late: self.bytes_of(self.result(0)),
                    flop: (again + BACKWARD_SUMS) * x,
                    loads: 1,
                }
            }
            Op::BatchNormBackwardData(op) => {
                self.once((self.recomputed(op.activation.is_some(), false) + BACKWARD_DATA) * x)
            }
            Op::Unary(_) | Op::Binary(_) => self.once(y),
            Op::UnaryBackward(_) => self.once(DERIVATIVE * y),
            Op::Reduce(_) => Whole {
                loads: UNROLLED as u64,
                ..self.once(x)
            },
            Op::Expand(_)
            | Op::Cast(_)
            | Op::Reshape(_)
            | Op::Identity(_)
            | Op::Dropout(_)
            | Op::Transpose(_)
            | Op::Concat(_)
            | Op::Pad(_) => moves,
            Op::Slice(_) => Whole {
                read: y * self.operand(0).map_or(0, |ty| ty.dtype.bytes()),
                ..moves
            },
            Op::MaxPool(op) => self.pool(&op.window()),
            Op::AveragePool(op) => self.pool(&op.window()),
            Op::MaxPoolBackward(op) => self.once(x * op.window().volume() as u64),
            Op::AveragePoolBackward(op) => self.once(x * op.window().volume() as u64),
            Op::Resize(_) => self.once(y),
            Op::ResizeBackward(_) => self.once(x),
            Op::SoftmaxCrossEntropy(_) => Whole {
                loads: self.loads_of_classes(),
                ..self.once(SOFTMAX * x)
            },
            Op::SoftmaxCrossEntropyBackward(_) => Whole {
                loads: self.loads_of_classes(),
                ..self.once((SOFTMAX + DERIVATIVE) * x)
            },
            Op::MeanSquaredError(_) | Op::MeanSquaredErrorBackward(_) => self.once(DERIVATIVE * x),
            // These have no kernels.
            Op::Input(_) | Op::Parameter(_) | Op::Statistic(_) | Op::Constant(_) | Op::AllReduce(_) => {
                Whole {
                    read: 0,
                    early: 0,
                    late: 0,
                    flop: 0,
                    loads: 0,
                }
            }
        }
    }

    /// Loads at once of a thread that walks through the classes of a pixel. Where they are neighbours in memory, a load
    /// brings a sector, and the next ones find it in the cache.
    fn loads_of_classes(&self) -> u64 {
        let neighbours = |ty: &TensorType| ty.shape.rank() == 2 || ty.layout == Layout::Nhwc;
        match self.operand(0) {
            Some(logits) if neighbours(logits) => SECTOR / logits.dtype.bytes(),
            Some(_) | None => UNROLLED as u64,
        }
    }

    fn pool(&self, window: &Window) -> Whole {
        let once = self.once(self.elements()[1] * window.volume() as u64);
        Whole {
            read: once.read - self.not_covered(window, self.result(0)),
            ..once
        }
    }

    /// Operations for an element of BatchNorm's backward pass until its gradient and its standardised value are known.
    fn recomputed(&self, activation: bool, residual: bool) -> u64 {
        let before = AFFINE + u64::from(residual) + DERIVATIVE;
        STANDARDISE + if activation { before } else { 0 }
    }

    /// Bytes of operands that a thread asks for at once: `loads` of each operand that is as long as the longest one.
    fn at_once(&self, cost: &Cost, loads: u64) -> u64 {
        let operands = match (cost.of_result, cost.share) {
            (true, _) => &self.call.types[self.call.operands..][..1],
            (false, Share::Weights) => &self.call.types[1..2],
            (false, Share::Whole | Share::Partial | Share::Merge) => &self.call.types[..self.call.operands],
        };
        let elements = |ty: &&TensorType| self.elements_of(Some(ty));
        let longest = operands.iter().map(elements).max().unwrap_or(0);
        let streamed = operands.iter().filter(|ty| elements(ty) == longest);
        let element: u64 = streamed.map(|ty| ty.dtype.bytes()).sum();
        element * loads * cost.lanes.max(1) as u64
    }
}

/// What the stage of an operator moves and computes of which `cost` is said.
pub fn traffic(call: &Call, cost: &Cost, batch: usize) -> Traffic {
    let sizes = Sizes { call, batch };
    let (read, written) = (cost.workspace_read as u64, cost.workspace_written as u64);
    let whole = sizes.whole(call.op, cost);
    let at_once = match (cost.tiles, cost.share) {
        (Some(_), _) => 0,
        (None, Share::Merge) => cost.workspace_at_once as u64,
        (None, _) => sizes.at_once(cost, whole.loads),
    };
    let (operands, results, flop) = match cost.share {
        Share::Whole => (whole.read, whole.early + whole.late, whole.flop),
        Share::Partial => (whole.read, whole.early, whole.flop),
        Share::Merge => (0, whole.late, 0),
        // The stage that uses the copy counts the weight.
        Share::Weights => {
            return Traffic {
                read: sizes.bytes_of(sizes.operand(1)),
                written,
                at_once,
                ..Traffic::default()
            };
        }
    };
    Traffic {
        read: operands + read,
        written: results + written,
        least: operands + results,
        flop,
        at_once,
    }
}
