//! Collectives in a step: a call of the runtime with a table of segments.

use std::mem::offset_of;

use melior::ir::Attribute;
use melior::ir::attribute::TypeAttribute;
use syncbn_abi::{Segment, symbols};
use syncbn_ir::{DType, NodeId};

use super::frame::Step;
use crate::LowerError;
use crate::emit::{Compare, Elem};

impl<'c> Step<'c, '_> {
    /// `if (ranks > 1) status = all_reduce(...)`, returning at once when the status is not 0. Neighbouring
    /// tensors of one element type travel as one segment.
    pub(super) fn all_reduce(&mut self, id: NodeId, collective: i64) -> Result<(), LowerError> {
        let segments = crate::schedule::segments(self.graph, id)?;
        let (reduce, next, failed) = (self.new_block(), self.new_block(), self.new_block());
        let several = self.frame.several;
        self.e.branch(several, reduce, next, reduce);
        let size = self.e.index((segments.len() * size_of::<Segment>()) as i64);
        let byte = self.e.ty(Elem::I8, 1);
        let elem_type: Attribute<'c> = TypeAttribute::new(byte).into();
        let alignment = self.e.i64_attribute(align_of::<Segment>() as i64);
        let attributes = [("elem_type", elem_type), ("alignment", alignment)];
        let table = self.e.op1("llvm.alloca", &[size], (Elem::Ptr, 1), &attributes);
        for (i, segment) in segments.iter().enumerate() {
            let pointer = self.pointer(segment.location);
            let elements = self.e.index(segment.elements as i64);
            let kind = self.e.index(if segment.dtype == DType::F32 { 0 } else { 1 });
            let fields = [
                (offset_of!(Segment, data), pointer),
                (offset_of!(Segment, elements), elements),
                (offset_of!(Segment, element_type), kind),
            ];
            for (offset, value) in fields {
                let offset = self.e.index((i * size_of::<Segment>() + offset) as i64);
                let address = self.e.address(table, Elem::I8, offset);
                self.e.store_scalar(address, value);
            }
        }
        let (index, count) = (self.e.index(collective), self.e.index(segments.len() as i64));
        let arguments = [self.frame.context, index, table, count];
        let status = self.call(symbols::ALL_REDUCE, &arguments, Some(Elem::I32));
        let Some(status) = status else {
            unreachable!("the call has a result")
        };
        let zero = self.e.int(Elem::I32, 0);
        let ok = self.e.compare(Compare::Eq, status, zero);
        self.e.branch(ok, next, failed, next);
        self.failures.push((failed, status));
        Ok(())
    }
}
