//! Which operators and types a schedule is for.

use super::{Convolution, Schedule};
use crate::attributes::Attribute;
use crate::ops::Op;
use crate::types::{DType, TensorType};

/// The largest number in a schedule: sizes of buffers that follow from it do not overflow.
const LARGEST: i64 = 1 << 20;

impl Schedule {
    /// Whether a node with this operator and these types can be computed so, or why not.
    pub fn fits(&self, op: &Op, operands: &[&TensorType], results: &[&TensorType]) -> Result<(), String> {
        if *self == Schedule::General {
            return Ok(());
        }
        self.check_fields()?;
        let float = |ty: &&TensorType| matches!(ty.dtype, DType::F32 | DType::F64);
        if !operands.first().is_some_and(float) {
            return Err("it is for f32 and f64".to_string());
        }
        if let Schedule::Product(_) = self {
            return check(matches!(op, Op::MatMul(_)), "it is for matrix products");
        }
        let Some(conv) = Convolution::of(op, operands, results) else {
            return Err("it is for convolutions".to_string());
        };
        match self {
            Schedule::Pointwise(_) => check(
                conv.window.volume() == 1 && !conv.is_padded() && conv.groups == 1,
                "it is for kernels of one element, without padding and groups",
            ),
            Schedule::Depthwise(_) => check(conv.is_depthwise(), "it is for one filter a channel"),
            Schedule::Winograd(_) => check_winograd(&conv, 1),
            Schedule::Polyphase(_) => check_winograd(&conv, 2),
            Schedule::Direct(s) => check(
                conv.groups_fill(s.lanes),
                "it is for one group, or for groups whose channels fill vectors",
            ),
            Schedule::General | Schedule::Product(_) => Ok(()),
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

fn check_winograd(conv: &Convolution, stride: usize) -> Result<(), String> {
    check(
        conv.input.len() == 2 && conv.has_window(3, stride) && conv.groups == 1,
        match stride {
            1 => "it is for images, kernels of 3x3 elements and stride 1, without dilation and groups",
            _ => "it is for images, kernels of 3x3 elements and stride 2, without dilation and groups",
        },
    )?;
    check(conv.dtype == DType::F32, "its rounding is for f32")?;
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
