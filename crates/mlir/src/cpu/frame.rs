//! A step function under construction: what it reads from its arguments, calls, places, traces.

use std::mem::offset_of;

use melior::ir::attribute::FlatSymbolRefAttribute;
use melior::ir::{Attribute, Block, BlockRef, Region, RegionLike};
use syncbn_abi::{ElementType, StepArguments, symbols};
use syncbn_ir::ops::Op;
use syncbn_ir::{Arena, DType, Graph, Location, NodeId, OutputKind, Value};

use super::Lowering;
use crate::LowerError;
use crate::emit::{Compare, Elem, Emitter, Val};
use crate::handle;

/// Pointers and sizes that a step function reads from its arguments once.
pub(super) struct Frame<'c> {
    pub(super) context: Val<'c>,
    arenas: Vec<(Arena, Val<'c>)>,
    inputs: Val<'c>,
    outputs: Val<'c>,
    loss: Val<'c>,
    pub(super) n: Val<'c>,
    pub(super) total: Val<'c>,
    trace: Val<'c>,
    pub(super) several: Val<'c>,
}

/// A step function under construction.
pub(super) struct Step<'c, 'g> {
    pub(super) graph: &'g Graph,
    pub(super) frame: Frame<'c>,
    pub(super) e: Emitter<'c>,
    pub(super) region: Region<'c>,
    /// Status to return, by the block that returns it.
    pub(super) failures: Vec<(BlockRef<'c, 'c>, Val<'c>)>,
}

macro_rules! field {
    ($e:expr, $arguments:expr, $name:ident, $elem:expr) => {{
        let offset = $e.index(offset_of!(StepArguments, $name) as i64);
        let address = $e.address($arguments, Elem::I8, offset);
        $e.load_scalar(address, $elem)
    }};
}

impl<'c> Lowering<'c> {
    pub(super) fn frame(&mut self, e: &mut Emitter<'c>, arguments: Val<'c>, constants: &str) -> Frame<'c> {
        let name: Attribute<'c> = FlatSymbolRefAttribute::new(self.context, constants).into();
        let constants = e.op1(
            "llvm.mlir.addressof",
            &[],
            (Elem::Ptr, 1),
            &[("global_name", name)],
        );
        let ranks = field!(e, arguments, ranks, Elem::I64);
        let one = e.index(1);
        Frame {
            context: field!(e, arguments, context, Elem::Ptr),
            arenas: vec![
                (Arena::Weights, field!(e, arguments, weights, Elem::Ptr)),
                (Arena::Gradients, field!(e, arguments, gradients, Elem::Ptr)),
                (Arena::Statistics, field!(e, arguments, statistics, Elem::Ptr)),
                (Arena::Prepared, field!(e, arguments, prepared, Elem::Ptr)),
                (Arena::Step, field!(e, arguments, step, Elem::Ptr)),
                (Arena::Constants, constants),
            ],
            inputs: field!(e, arguments, inputs, Elem::Ptr),
            outputs: field!(e, arguments, outputs, Elem::Ptr),
            loss: field!(e, arguments, loss, Elem::Ptr),
            n: field!(e, arguments, n, Elem::I64),
            total: field!(e, arguments, total, Elem::I64),
            trace: field!(e, arguments, trace, Elem::I64),
            several: e.compare(Compare::Gt, ranks, one),
        }
    }
}

impl<'c> Step<'c, '_> {
    pub(super) fn call(
        &mut self,
        name: &str,
        arguments: &[Val<'c>],
        result: Option<Elem>,
    ) -> Option<Val<'c>> {
        let callee: Attribute<'c> = FlatSymbolRefAttribute::new(self.e.context, name).into();
        let segments = self.e.i32_array(&[arguments.len() as i32, 0]);
        let bundles = self.e.i32_array(&[]);
        let attributes = [
            ("callee", callee),
            ("operandSegmentSizes", segments),
            ("op_bundle_sizes", bundles),
        ];
        let results: Vec<(Elem, usize)> = result.into_iter().map(|elem| (elem, 1)).collect();
        self.e
            .op("llvm.call", arguments, &results, &attributes)
            .first()
            .copied()
    }

    pub(super) fn pointer(&mut self, location: Location) -> Val<'c> {
        let table = match location.arena {
            Arena::Inputs => Some(self.frame.inputs),
            Arena::Outputs => Some(self.frame.outputs),
            _ => None,
        };
        let offset = self.e.index(location.offset as i64);
        if let Some(table) = table {
            let slot = self.e.address(table, Elem::Ptr, offset);
            return self.e.load_scalar(slot, Elem::Ptr);
        }
        let base = self
            .frame
            .arenas
            .iter()
            .find(|(arena, _)| *arena == location.arena);
        match base {
            Some(&(_, base)) if location.offset == 0 => base,
            Some(&(_, base)) => self.e.address(base, Elem::I8, offset),
            None => unreachable!("inputs and outputs were handled above"),
        }
    }

    pub(super) fn new_block(&self) -> BlockRef<'c, 'c> {
        handle::block(&*self.region.append_block(Block::new(&[])))
    }

    /// Shows every floating-point result to the runtime when it asks for it.
    pub(super) fn trace(&mut self, id: NodeId, index: i64) -> Result<(), LowerError> {
        let node = self.graph.node(id);
        let zero = self.e.index(0);
        let frame_trace = self.frame.trace;
        if matches!(
            node.op,
            Op::Input(_) | Op::Parameter(_) | Op::Statistic(_) | Op::Constant(_)
        ) {
            return Ok(());
        }
        let (show, next) = (self.new_block(), self.new_block());
        let wanted = self.e.compare(Compare::Ne, frame_trace, zero);
        self.e.branch(wanted, show, next, show);
        for (slot, output) in node.outputs.iter().enumerate() {
            let (location, _) = crate::schedule::place(self.graph, Value { node: id, slot })?;
            let per_sample = self
                .e
                .index(output.ty.stored_elements_per_sample().unwrap_or(0) as i64);
            let elements = match output.ty.shape.has_batch() {
                true => self.e.mul(per_sample, self.frame.n),
                false => per_sample,
            };
            let pointer = self.pointer(location);
            let element_type = match output.ty.dtype {
                DType::F32 => ElementType::F32,
                DType::F64 => ElementType::F64,
                DType::I64 | DType::U8 => continue,
            };
            let index = self.e.index(index);
            let output = self.e.index(syncbn_abi::trace_output(slot as u32, element_type));
            let arguments = [self.frame.context, index, output, pointer, elements];
            self.call(symbols::TRACE, &arguments, None);
        }
        self.e.jump(next);
        Ok(())
    }

    pub(super) fn write_loss(&mut self) -> Result<(), LowerError> {
        let loss = self.graph.outputs.iter().find(|o| o.kind == OutputKind::Loss);
        let loss = loss.ok_or_else(|| LowerError::Internal {
            message: "no loss in the graph".into(),
        })?;
        let (location, _) = crate::schedule::place(self.graph, loss.value)?;
        let from = self.pointer(location);
        let value = self.e.load_scalar(from, Elem::F64);
        let to = self.frame.loss;
        self.e.store_scalar(to, value);
        Ok(())
    }
}
