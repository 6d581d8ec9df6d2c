//! `pad-channels`: gives convolutions as many channels as matrix units read at once, the added ones zero.
//!
//! Before, for channels in fours:
//! ```text
//! %y = conv(%x, %w) : f32[batch, 64, 112, 112]                    // x f32[batch, 3, 224, 224]
//! %dw = conv_backward_weight(%x, %dy) : f32[64, 3, 7, 7]
//! ```
//! After:
//! ```text
//! %xp = pad(%x) {axis = 1, before = 0, after = 1} : f32[batch, 4, 224, 224]
//! %wp = pad(%w) {axis = 1, before = 0, after = 1} : f32[64, 4, 7, 7]
//! %y = conv(%xp, %wp) : f32[batch, 64, 112, 112]
//! %dwp = conv_backward_weight(%xp, %dy) : f32[64, 4, 7, 7]
//! %dw = slice(%dwp) {axis = 1, begin = 0, end = 3} : f32[64, 3, 7, 7]
//! ```
//!
//! Output channels are treated alike: of the weights, the bias and the residual, and of the gradient that comes back;
//! the result and its moments are cut. Whether channels are padded depends on sizes alone, so that the three directions
//! of one convolution agree and share what is padded, and a padded graph input gets its layout in the same copy.
//!
//! It leaves alone groups and other than images, which have no kernel on matrix units; maps of one position, whose
//! products are smaller than the copies; linear layers for the same reason, as the few classes of a head have few
//! products; and convolutions with several times the channels that would more than double their work. Below one
//! multiple of channels padding is free: a tile of the product has more rows and columns than that. With
//! [`crate::Target::channel_multiple`] 1, as on CPUs, it does nothing.

use std::num::NonZeroUsize;

use syncbn_ir::ops::{Concat, Conv, ConvBackwardWeight, Pad, Slice};
use syncbn_ir::{Graph, NodeId, Op, TensorType, Value};

use crate::error::PassError;
use crate::pass::{Changes, Pass, PassContext};
use crate::rewrite::{Patch, PatchValue, Rule, rewrite};

/// The pass.
pub struct PadChannels;

impl Pass for PadChannels {
    fn name(&self) -> &'static str {
        "pad-channels"
    }

    fn summary(&self) -> &'static str {
        "adds channels of zeros to convolutions, for GPUs"
    }

    fn run(&self, graph: &mut Graph, cx: &mut PassContext) -> Result<Changes, PassError> {
        if cx.options.target.channel_multiple <= 1 {
            return Ok(0);
        }
        let rules = [Rule {
            name: "pad-channels",
            matcher: pad_channels,
        }];
        rewrite(graph, &rules, cx)
    }
}

fn pad_channels(graph: &Graph, id: NodeId, cx: &mut PassContext) -> Result<Option<Patch>, PassError> {
    let operands = graph.operands(id);
    let result = Value::from(id);
    let (groups, x, y) = match (graph.op(id), &operands[..]) {
        (Op::Conv(op), &[x, ..]) => (op.groups, x, result),
        (Op::ConvBackwardData(op), &[dy, ..]) => (op.groups, result, dy),
        (Op::ConvBackwardWeight(op), &[x, dy]) => (op.groups, x, dy),
        _ => return Ok(None),
    };
    let multiple = cx.options.target.channel_multiple;
    let Some(channels) = channels(graph.ty(x), graph.ty(y), groups, multiple) else {
        return Ok(None);
    };
    let mut builder = Builder {
        graph,
        name: &graph.node(id).name,
        patch: Patch::default(),
    };
    match graph.op(id) {
        Op::Conv(op) => builder.conv(op, &operands, channels, result)?,
        Op::ConvBackwardData(op) => {
            let [c, k] = channels;
            let dy = builder.pad(operands[0].into(), 1, k)?;
            let w = builder.pad_weight(operands[1], channels)?;
            let dx = builder.add(op.clone(), &[dy, w])?;
            let dx = builder.cut(dx, 1, c.own)?;
            builder.patch.replace(result, dx);
        }
        Op::ConvBackwardWeight(op) => builder.conv_backward_weight(op, &operands, channels, result)?,
        _ => return Ok(None),
    }
    Ok(Some(builder.patch))
}

/// A number of channels, without and with those that are added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Channels {
    own: usize,
    padded: usize,
}

impl Channels {
    fn added(self) -> usize {
        self.padded - self.own
    }
}

/// The channels of a convolution from `x` to `y`, if some are to be added.
fn channels(x: &TensorType, y: &TensorType, groups: usize, multiple: usize) -> Option<[Channels; 2]> {
    let sizes = |ty: &TensorType| {
        ty.shape.0[1..]
            .iter()
            .map(|d| d.fixed())
            .collect::<Option<Vec<_>>>()
    };
    let (&[c, ..], &[k, height, width]) = (&sizes(x)?[..], &sizes(y)?[..]) else {
        return None;
    };
    let padded = [c, k].map(|own| Channels {
        own,
        padded: own.next_multiple_of(multiple),
    });
    let work = |f: fn(&Channels) -> usize| padded.iter().map(f).product::<usize>();
    let is_narrow = c.min(k) < multiple;
    let pays = height * width > 1 && (is_narrow || work(|c| c.padded) <= 2 * work(|c| c.own));
    let fits = padded.iter().all(|c| c.added() == 0);
    (groups == 1 && pays && !fits).then_some(padded)
}

/// Builds the patch of one convolution.
struct Builder<'g> {
    graph: &'g Graph,
    name: &'g str,
    patch: Patch,
}

impl Builder<'_> {
    fn add(&mut self, op: impl Into<Op>, operands: &[PatchValue]) -> Result<PatchValue, PassError> {
        self.patch.add(self.graph, op, self.name, operands)
    }

    /// The value with its channels padded; the same one for all who ask.
    fn pad(&mut self, value: PatchValue, axis: usize, channels: Channels) -> Result<PatchValue, PassError> {
        if channels.added() == 0 {
            return Ok(value);
        }
        let pad = Op::Pad(Pad {
            axis,
            before: 0,
            after: channels.added(),
            step: NonZeroUsize::MIN,
        });
        if let PatchValue::Old(old) = value {
            let users = self.graph.users(old);
            if let Some(&(user, _)) = users.iter().find(|(user, _)| *self.graph.op(*user) == pad) {
                return Ok(Value::from(user).into());
            }
        }
        self.add(pad, &[value])
    }

    /// Weights with both kinds of channels padded.
    fn pad_weight(&mut self, w: Value, [c, k]: [Channels; 2]) -> Result<PatchValue, PassError> {
        let w = self.pad(w.into(), 1, c)?;
        self.pad(w, 0, k)
    }

    /// The first `end` indices of an axis.
    fn cut(&mut self, value: PatchValue, axis: usize, end: usize) -> Result<PatchValue, PassError> {
        self.range(value, axis, [0, end])
    }

    fn range(
        &mut self,
        value: PatchValue,
        axis: usize,
        [begin, end]: [usize; 2],
    ) -> Result<PatchValue, PassError> {
        let size = self
            .patch
            .ty(self.graph, value)
            .and_then(|ty| ty.shape.0[axis].fixed());
        if begin == 0 && size == Some(end) {
            return Ok(value);
        }
        let step = NonZeroUsize::MIN;
        self.add(
            Slice {
                axis,
                begin,
                end,
                step,
            },
            &[value],
        )
    }

    fn conv(
        &mut self,
        op: &Conv,
        operands: &[Value],
        channels: [Channels; 2],
        result: Value,
    ) -> Result<(), PassError> {
        let [c, k] = channels;
        let mut padded = vec![
            self.pad(operands[0].into(), 1, c)?,
            self.pad_weight(operands[1], channels)?,
        ];
        for (&operand, axis) in operands[2..].iter().zip([0, 1]) {
            padded.push(self.pad(operand.into(), axis, k)?);
        }
        let y = self.add(op.clone(), &padded)?;
        if op.moments {
            let packed = self.moments(y.slot(1), k)?;
            self.patch.replace(Value { slot: 1, ..result }, packed);
        }
        let y = self.cut(y, 1, k.own)?;
        self.patch.replace(result, y);
        Ok(())
    }

    /// Packed moments of the first channels.
    fn moments(&mut self, packed: PatchValue, k: Channels) -> Result<PatchValue, PassError> {
        if k.added() == 0 {
            return Ok(packed);
        }
        let second = 1 + k.padded;
        let parts = [[0, 1 + k.own], [second, second + k.own]];
        let [first, second] = parts.map(|range| self.range(packed, 0, range));
        self.add(Concat { axis: 0 }, &[first?, second?])
    }

    fn conv_backward_weight(
        &mut self,
        op: &ConvBackwardWeight,
        operands: &[Value],
        [c, k]: [Channels; 2],
        result: Value,
    ) -> Result<(), PassError> {
        let x = self.pad(operands[0].into(), 1, c)?;
        let dy = self.pad(operands[1].into(), 1, k)?;
        let dw = self.add(op.clone(), &[x, dy])?;
        let dw = self.cut(dw, 0, k.own)?;
        let dw = self.cut(dw, 1, c.own)?;
        self.patch.replace(result, dw);
        Ok(())
    }
}
