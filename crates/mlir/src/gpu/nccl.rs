//! The `nccl` dialect: collectives on a stream, as operations that MLIR verifies. Defined in IRDL, MLIR's language
//! for dialects that need no C++.
//!
//! `nccl.all_reduce(comm, send, recv, count, stream) {datatype, redop}` sums `count` elements over the ranks of a
//! communicator; between `nccl.group_start` and `nccl.group_end` several are issued as one.

use melior::Context;
use melior::ir::attribute::{StringAttribute, TypeAttribute};
use melior::ir::{Attribute, Module, Type};
use melior::utility::load_irdl_dialects;
use syncbn_ir::DType;

use crate::emit::{Elem, Emitter, Val};
use crate::error::LowerError;

/// The dialect's definition.
pub const DEFINITION: &str = include_str!("nccl.irdl.mlir");

/// Makes the dialect known to a context.
pub fn register(context: &Context) -> Result<(), LowerError> {
    let failed = || LowerError::Internal {
        message: "the nccl dialect could not be loaded".to_string(),
    };
    let definition = Module::parse(context, DEFINITION).ok_or_else(failed)?;
    load_irdl_dialects(&definition).then_some(()).ok_or_else(failed)
}

/// The sum of `count` elements at `pointer` over the ranks, in place.
pub fn all_reduce<'c>(
    e: &Emitter<'c>,
    communicator: Val<'c>,
    pointer: Val<'c>,
    count: Val<'c>,
    dtype: DType,
    stream: Val<'c>,
) -> Result<(), LowerError> {
    let context = e.context;
    let element = match dtype {
        DType::F32 => Type::float32(context),
        DType::F64 => Type::float64(context),
        DType::BF16 | DType::I64 | DType::U8 => {
            return Err(LowerError::Internal {
                message: format!("an all-reduce of {dtype}"),
            });
        }
    };
    let communicator = e.op1(
        "builtin.unrealized_conversion_cast",
        &[communicator],
        (Elem::Communicator, 1),
        &[],
    );
    let datatype: Attribute<'c> = TypeAttribute::new(element).into();
    let redop: Attribute<'c> = StringAttribute::new(context, "sum").into();
    let operands = [communicator, pointer, pointer, count, stream];
    e.op(
        "nccl.all_reduce",
        &operands,
        &[],
        &[("datatype", datatype), ("redop", redop)],
    );
    Ok(())
}

/// Starts a group of collectives.
pub fn group_start(e: &Emitter) {
    e.op("nccl.group_start", &[], &[], &[]);
}

/// Issues the collectives of a group.
pub fn group_end<'c>(e: &Emitter<'c>, stream: Val<'c>) {
    e.op("nccl.group_end", &[stream], &[], &[]);
}
