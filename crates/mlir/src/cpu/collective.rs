//! Collectives in a step: a call of the runtime with a table of segments.

use std::mem::offset_of;

use melior::ir::Attribute;
use melior::ir::attribute::TypeAttribute;
use syncbn_abi::{Segment, symbols};
use syncbn_ir::{DType, NodeId};

use crate::emit::{Elem, Val};
use crate::error::LowerError;
use crate::host::Step;

/// `if (ranks > 1 && thread == 0) status = all_reduce(...)`, returning at once when the status is not 0. Neighbouring
/// tensors of one element type travel as one segment.
pub(super) fn all_reduce<'c>(
    step: &mut Step<'c, '_>,
    is_first: Val<'c>,
    id: NodeId,
    collective: i64,
) -> Result<(), LowerError> {
    let segments = crate::order::segments(step.graph, id)?;
    let (reduce, next) = (step.new_block(), step.new_block());
    let several = step.e.and(step.frame.several, is_first);
    step.e.branch(several, reduce, next, reduce);
    let size = step.e.index((segments.len() * size_of::<Segment>()) as i64);
    let byte = step.e.ty(Elem::I8, 1);
    let elem_type: Attribute<'c> = TypeAttribute::new(byte).into();
    let alignment = step.e.i64_attribute(align_of::<Segment>() as i64);
    let attributes = [("elem_type", elem_type), ("alignment", alignment)];
    let table = step.e.op1("llvm.alloca", &[size], (Elem::Ptr, 1), &attributes);
    for (i, segment) in segments.iter().enumerate() {
        let pointer = step.pointer(segment.location);
        let elements = step.e.index(segment.elements as i64);
        let kind = step.e.index(if segment.dtype == DType::F32 { 0 } else { 1 });
        let fields = [
            (offset_of!(Segment, data), pointer),
            (offset_of!(Segment, elements), elements),
            (offset_of!(Segment, element_type), kind),
        ];
        for (offset, value) in fields {
            let offset = step.e.index((i * size_of::<Segment>() + offset) as i64);
            let address = step.e.address(table, Elem::I8, offset);
            step.e.store_scalar(address, value);
        }
    }
    let (index, count) = (step.e.index(collective), step.e.index(segments.len() as i64));
    let arguments = [step.frame.context, index, table, count];
    step.call_or_fail(symbols::ALL_REDUCE, &arguments, next);
    Ok(())
}
