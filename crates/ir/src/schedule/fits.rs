//! Which operators and types a schedule is for.

use super::workspace::copied;
use super::{Convolution, Copies, Direction, MOST_COPIED, MOST_PHASES, Pointwise, Schedule, Winograd};
use crate::attributes::Attribute;
use crate::ops::Op;
use crate::types::{DType, Dim, TensorType};

/// The largest number in a schedule: sizes of buffers that follow from it do not overflow.
const LARGEST: i64 = 1 << 20;
/// Bytes of the widest vectors that there are.
const VECTOR_BYTES: u64 = 64;
/// The most vectors of a register tile: twice the registers that there are.
const ACCUMULATORS: usize = 64;

impl Schedule {
    /// Whether a node with this operator and these types can be computed so, or why not.
    pub fn fits(&self, op: &Op, operands: &[&TensorType], results: &[&TensorType]) -> Result<(), String> {
        if *self == Schedule::General {
            return Ok(());
        }
        self.check_fields()?;
        if let Schedule::ImplicitGemm(s) = self {
            return s.fits(op, operands, results);
        }
        let float = |ty: &&TensorType| matches!(ty.dtype, DType::F32 | DType::F64);
        if !operands.first().is_some_and(float) {
            return Err("it is for f32 and f64".to_string());
        }
        if let Schedule::Product(_) = self {
            check(matches!(op, Op::MatMul(_)), "it is for matrix products")?;
            return self.check_registers(operands[0].dtype);
        }
        let Some(conv) = Convolution::of(op, operands, results) else {
            return Err("it is for convolutions".to_string());
        };
        self.fits_convolution(&conv)
    }

    /// Whether a convolution can be computed so, or why not.
    pub fn fits_convolution(&self, conv: &Convolution) -> Result<(), String> {
        check(conv.samples == Dim::Batch, "it is for a batch")?;
        match self {
            Schedule::Pointwise(Pointwise(s)) => {
                check(
                    conv.window.volume() == 1 && !conv.is_padded() && conv.groups == 1,
                    "it is for kernels of one element, without padding and groups",
                )?;
                check_copies(conv, || copied(conv, s))
            }
            Schedule::Depthwise(_) => {
                check(conv.is_depthwise(), "it is for one filter a channel")?;
                check_copies(conv, || {
                    let copies = Copies::of_depthwise(conv);
                    copies.map_or(u64::MAX, |c| c.bytes(c.rows_of_depthwise()) as u64)
                })
            }
            Schedule::Winograd(s) => check_winograd(conv, s, 1),
            Schedule::Polyphase(s) => check_winograd(conv, s, 2),
            Schedule::Direct(s) => {
                check(
                    conv.groups_fill(s.lanes),
                    "it is for one group, or for groups whose channels fill vectors",
                )?;
                check_copies(conv, || copied(conv, s))
            }
            Schedule::General => Ok(()),
            Schedule::Product(_) => Err("it is for matrix products".to_string()),
            Schedule::ImplicitGemm(_) => Err("it is for GPUs".to_string()),
        }?;
        self.check_registers(conv.dtype)
    }

    /// What code is written out for: more would be code without end.
    fn check_registers(&self, dtype: DType) -> Result<(), String> {
        let lanes = self.lanes().unwrap_or(1);
        check(
            lanes as u64 * dtype.bytes() <= VECTOR_BYTES,
            "its vectors are wider than those of any processor",
        )?;
        let accumulators = match *self {
            Schedule::General | Schedule::ImplicitGemm(_) => 1,
            Schedule::Direct(s) | Schedule::Pointwise(Pointwise(s)) => s.pixels * s.vectors,
            Schedule::Depthwise(s) => s.pixels,
            Schedule::Winograd(s) | Schedule::Polyphase(s) => s.pixels * s.vectors,
            Schedule::Product(s) => s.pixels * s.vectors,
        };
        match accumulators <= ACCUMULATORS {
            true => Ok(()),
            false => Err(format!(
                "its register tile has {accumulators} vectors, more than {ACCUMULATORS}"
            )),
        }
    }

    fn check_fields(&self) -> Result<(), String> {
        for (name, value) in self.fields() {
            if let Attribute::Int(number) = value
                && !(1..=LARGEST).contains(&number)
            {
                return Err(format!("{name} is {number}, which is not in 1 to {LARGEST}"));
            }
        }
        match self.lanes() {
            Some(lanes) if !lanes.is_power_of_two() => {
                Err(format!("lanes is {lanes}, which is no power of two"))
            }
            _ => Ok(()),
        }
    }
}

/// Whether a form that copies its input is written out for so many phases, strides and bytes.
fn check_copies(conv: &Convolution, copied: impl Fn() -> u64) -> Result<(), String> {
    let phases = conv.phases();
    if phases > MOST_PHASES {
        return Err(format!(
            "its strides take {phases} forms of code, more than {MOST_PHASES}"
        ));
    }
    check(
        conv.window
            .strides
            .iter()
            .all(|&stride| stride as u64 <= LARGEST as u64),
        "its strides are too large",
    )?;
    let bytes = copied();
    match bytes <= MOST_COPIED as u64 {
        true => Ok(()),
        false => Err(format!(
            "its copy of the input has {bytes} bytes, more than {MOST_COPIED}"
        )),
    }
}

fn check_winograd(conv: &Convolution, s: &Winograd, stride: usize) -> Result<(), String> {
    check(
        conv.input.len() == 2 && conv.has_window(3, stride) && conv.groups == 1,
        match stride {
            1 => "it is for images, kernels of 3x3 elements and stride 1, without dilation and groups",
            _ => "it is for images, kernels of 3x3 elements and stride 2, without dilation and groups",
        },
    )?;
    check(conv.dtype == DType::F32, "its rounding is for f32")?;
    if s.prepared {
        check(
            conv.direction == Direction::Forward,
            "it is prepared for results only",
        )?;
        check(!s.chunked, "weights that are prepared are not chunked")?;
    }
    match conv.direction {
        Direction::BackwardWeight => check(s.tiles.is_multiple_of(4), "its tiles are no multiple of 4")?,
        Direction::Forward | Direction::BackwardData => {
            check(
                s.tiles.is_multiple_of(s.pixels),
                "its tiles are no multiple of its pixels",
            )?;
        }
    }
    check(
        stride == 1 || conv.window.pads.iter().all(|&pad| pad == 1),
        "it is for padding 1",
    )
}

fn check(holds: bool, reason: &str) -> Result<(), String> {
    match holds {
        true => Ok(()),
        false => Err(reason.to_string()),
    }
}
