//! `fold-batch-norm`: inference; BatchNorm goes into the weights before it, a residual and an activation into the
//! epilogue.
//!
//! Before:
//! ```text
//! %1 = conv(%x, %w)
//! %2 = batch_norm(%1, %scale, %bias, %mean, %var)
//! %3 = binary(%2, %r) {function = add}
//! %4 = unary(%3) {function = silu}
//! ```
//! After, with `s = scale / sqrt(var + epsilon)`:
//! ```text
//! %w2 = %w * s
//! %b2 = %bias - %mean * s
//! %4 = conv(%x, %w2, %b2, %r) {activation = silu}
//! ```
//!
//! The new weights are nodes of the graph. They depend on no data, so they are computed once, before the first
//! step. Matrix products are treated the same, but have no epilogue. A convolution's own bias `b` counts: `b2 = bias + (b - mean) * s`.
//!
//! It leaves alone a BatchNorm whose input is read by others too or is no convolution or matrix product (after
//! a residual addition, before a convolution); one in training form; weights, a bias, scales or statistics that
//! depend on the data, because the new weights would have to be computed anew in every step; and a sum that
//! broadcasts or is of a convolution without a bias or with other readers.

mod epilogue;

use syncbn_ir::ops::{Binary, BinaryFunction, Cast, Reshape, Unary, UnaryFunction, literal};
use syncbn_ir::{DType, Dim, Graph, Literal, NodeId, Op, Shape, Value};

use crate::analysis::any_depends_on_batch;
use crate::error::PassError;
use crate::options::Mode;
use crate::pass::{Changes, Pass, PassContext};
use crate::rewrite::{Patch, PatchValue, Rule, rewrite};

/// The pass.
pub struct FoldBatchNorm;

impl Pass for FoldBatchNorm {
    fn name(&self) -> &'static str {
        "fold-batch-norm"
    }

    fn summary(&self) -> &'static str {
        "inference: BatchNorm goes into the weights before it, residual and activation into the epilogue"
    }

    fn run(&self, graph: &mut Graph, cx: &mut PassContext) -> Result<Changes, PassError> {
        if cx.options.mode == Mode::Train {
            return Ok(0);
        }
        let rules = [
            Rule {
                name: "fold-into-conv",
                matcher: into_conv,
            },
            Rule {
                name: "fold-into-matmul",
                matcher: into_matmul,
            },
        ];
        // The epilogue comes second: an activation in it would hide the convolution.
        let epilogue = [
            Rule {
                name: "residual",
                matcher: epilogue::residual,
            },
            Rule {
                name: "activation",
                matcher: epilogue::activation,
            },
        ];
        Ok(rewrite(graph, &rules, cx)? + rewrite(graph, &epilogue, cx)?)
    }
}

/// An inference-form BatchNorm that alone reads what `producer` computes.
struct Match {
    operands: Vec<Value>,
    epsilon: f64,
    producer: NodeId,
}

fn batch_norm_after(graph: &Graph, id: NodeId) -> Option<Match> {
    let Op::BatchNorm(op) = graph.op(id) else {
        return None;
    };
    let operands = graph.operands(id);
    let x = *operands.first()?;
    (!op.training && x.slot == 0 && graph.use_count(x) == 1).then_some(Match {
        epsilon: op.epsilon,
        producer: x.node,
        operands,
    })
}

/// `s = scale / sqrt(var + epsilon)` and `bias + (b - mean) * s`, computed in f64: both are short.
struct Folded<'a> {
    graph: &'a Graph,
    name: &'a str,
    patch: Patch,
    dtype: DType,
}

impl Folded<'_> {
    fn add(&mut self, op: impl Into<Op>, operands: &[PatchValue]) -> Result<PatchValue, PassError> {
        self.patch.add(self.graph, op, self.name, operands)
    }

    fn cast(&mut self, v: PatchValue, dtype: DType) -> Result<PatchValue, PassError> {
        match self.dtype == DType::F64 {
            true => Ok(v),
            false => self.add(Cast { dtype }, &[v]),
        }
    }

    fn wide(&mut self, v: Value) -> Result<PatchValue, PassError> {
        self.cast(v.into(), DType::F64)
    }

    fn binary(
        &mut self,
        function: BinaryFunction,
        a: PatchValue,
        b: PatchValue,
    ) -> Result<PatchValue, PassError> {
        self.add(Binary { function }, &[a, b])
    }

    /// The factor of every channel, and the new bias, from the BatchNorm's operands and the bias before it.
    fn factors(&mut self, m: &Match, before: Option<Value>) -> Result<[PatchValue; 2], PassError> {
        let &[_, scale, bias, mean, var] = m.operands.as_slice() else {
            let message = "a batch_norm has other than 5 operands".to_string();
            return Err(PassError::Rule {
                rule: "fold",
                message,
            });
        };
        let epsilon = self.add(literal(Literal::scalar(DType::F64, m.epsilon)), &[])?;
        let var = self.wide(var)?;
        let shifted = self.binary(BinaryFunction::Add, var, epsilon)?;
        let rsqrt = Unary {
            function: UnaryFunction::Rsqrt,
        };
        let inv_std = self.add(rsqrt, &[shifted])?;
        let scale = self.wide(scale)?;
        let factor = self.binary(BinaryFunction::Mul, scale, inv_std)?;
        let (mean, bias) = (self.wide(mean)?, self.wide(bias)?);
        let shift = match before {
            Some(b) => {
                let b = self.wide(b)?;
                let centred = self.binary(BinaryFunction::Sub, b, mean)?;
                let scaled = self.binary(BinaryFunction::Mul, centred, factor)?;
                self.binary(BinaryFunction::Add, bias, scaled)?
            }
            None => {
                let scaled = self.binary(BinaryFunction::Mul, mean, factor)?;
                self.binary(BinaryFunction::Sub, bias, scaled)?
            }
        };
        Ok([factor, self.cast(shift, self.dtype)?])
    }

    /// The weights times the factor of their output channel, which lies along `axis`.
    fn scaled(&mut self, w: Value, factor: PatchValue, axis: usize) -> Result<PatchValue, PassError> {
        let w_shape = self.graph.ty(w).shape.clone();
        let mut dims = vec![Dim::Fixed(1); w_shape.rank()];
        dims[axis] = w_shape.0[axis];
        let factor = self.cast(factor, self.dtype)?;
        let factor = self.add(Reshape { shape: Shape(dims) }, &[factor])?;
        self.binary(BinaryFunction::Mul, w.into(), factor)
    }
}

fn folded<'a>(graph: &'a Graph, id: NodeId) -> Folded<'a> {
    Folded {
        graph,
        name: &graph.node(id).name,
        patch: Patch::default(),
        dtype: graph.ty(id.into()).dtype,
    }
}

fn into_conv(graph: &Graph, id: NodeId, _: &mut PassContext) -> Result<Option<Patch>, PassError> {
    let Some(m) = batch_norm_after(graph, id) else {
        return Ok(None);
    };
    let Op::Conv(conv) = graph.op(m.producer).clone() else {
        return Ok(None);
    };
    let operands = graph.operands(m.producer);
    let weights = [&operands[1..], &m.operands[1..]].concat();
    if conv.activation.is_some()
        || conv.moments
        || operands.len() > 3
        || any_depends_on_batch(graph, &weights)
    {
        return Ok(None);
    }
    let mut folded = folded(graph, m.producer);
    let [factor, bias] = folded.factors(&m, operands.get(2).copied())?;
    let w = folded.scaled(operands[1], factor, 0)?;
    let y = folded.add(conv, &[operands[0].into(), w, bias])?;
    folded.patch.replace(id.into(), y);
    Ok(Some(folded.patch))
}

fn into_matmul(graph: &Graph, id: NodeId, _: &mut PassContext) -> Result<Option<Patch>, PassError> {
    let Some(mut m) = batch_norm_after(graph, id) else {
        return Ok(None);
    };
    let c = graph.ty(m.operands[1]).shape.clone();
    let mut before = None;
    if let (
        Op::Binary(Binary {
            function: BinaryFunction::Add,
        }),
        &[a, b],
    ) = (graph.op(m.producer), graph.operands(m.producer).as_slice())
    {
        let product = |v: Value| matches!(graph.op(v.node), Op::MatMul(_)) && graph.use_count(v) == 1;
        let (y, bias) = if product(a) { (a, b) } else { (b, a) };
        if !product(y) || graph.ty(bias).shape != c {
            return Ok(None);
        }
        before = Some(bias);
        m.producer = y.node;
    }
    let Op::MatMul(op) = graph.op(m.producer).clone() else {
        return Ok(None);
    };
    let operands = graph.operands(m.producer);
    let (x, w) = (operands[0], operands[1]);
    let weights = [&[w], before.as_slice(), &m.operands[1..]].concat();
    if any_depends_on_batch(graph, &weights) {
        return Ok(None);
    }
    let mut folded = folded(graph, m.producer);
    let [factor, bias] = folded.factors(&m, before)?;
    let w = folded.scaled(w, factor, if op.transpose_b { 0 } else { 1 })?;
    let y = folded.add(op, &[x.into(), w])?;
    let y = folded.binary(BinaryFunction::Add, y, bias)?;
    folded.patch.replace(id.into(), y);
    Ok(Some(folded.patch))
}
