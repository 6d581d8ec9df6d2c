//! Step functions: the schedule of kernels and collectives over the planned memory.

use std::mem::offset_of;

use melior::ir::RegionLike;
use melior::ir::attribute::{FlatSymbolRefAttribute, StringAttribute, TypeAttribute};
use melior::ir::block::BlockLike;
use melior::ir::operation::OperationBuilder;
use melior::ir::{Attribute, Block, BlockRef, Identifier, Region};
use syncbn_abi::{ElementType, StepArguments, symbols};
use syncbn_ir::ops::Op;
use syncbn_ir::{Arena, DType, Graph, Location, NodeId, OutputKind, TensorType, Value};

use super::function::Parameter;
use super::{Lowering, Part, update_width};
use crate::LowerError;
use crate::emit::{Compare, Elem, Emitter, Val};
use crate::handle;
use crate::ops::update;
use crate::schedule::overlap;

/// Constants of the training graph.
pub const TRAIN_CONSTANTS: &str = "syncbn_train_constants";
/// Constants of the inference graph.
pub const INFER_CONSTANTS: &str = "syncbn_infer_constants";

/// Pointers and sizes that a step function reads from its arguments once.
pub(super) struct Frame<'c> {
    pub(super) context: Val<'c>,
    arenas: Vec<(Arena, Val<'c>)>,
    inputs: Val<'c>,
    outputs: Val<'c>,
    loss: Val<'c>,
    n: Val<'c>,
    total: Val<'c>,
    trace: Val<'c>,
    pub(super) several: Val<'c>,
}

/// A step function under construction.
pub(super) struct Step<'c, 'g> {
    pub(super) graph: &'g Graph,
    pub(super) frame: Frame<'c>,
    pub(super) e: Emitter<'c>,
    region: Region<'c>,
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
    /// The training step and the updates.
    pub(super) fn training(&mut self, part: Part) -> Result<(), LowerError> {
        self.declare_constants(TRAIN_CONSTANTS);
        self.step(symbols::TRAIN_STEP, TRAIN_CONSTANTS, part.graph, part.step, true)?;
        self.updates();
        Ok(())
    }

    /// Preparation and inference.
    pub(super) fn inference(&mut self, part: Part) -> Result<(), LowerError> {
        self.declare_constants(INFER_CONSTANTS);
        self.step(
            symbols::INFER_PREPARE,
            INFER_CONSTANTS,
            part.graph,
            part.prepare,
            false,
        )?;
        self.step(symbols::INFER_STEP, INFER_CONSTANTS, part.graph, part.step, false)
    }

    /// The update of each optimiser.
    fn updates(&mut self) {
        let location = self.unknown();
        let width = update_width(self.vector_bytes, self.dtype);
        let updates: [(&str, update::Build<'c>); 2] = [
            (symbols::UPDATE_SGD, update::sgd),
            (symbols::UPDATE_ADAMW, update::adamw),
        ];
        for (name, build) in updates {
            let parameters = [Parameter::Exclusive];
            let (region, block, arguments) = self.body(&parameters, location);
            let mut e = Emitter::new(self.context, location, block);
            build(&mut e, arguments[0], super::elem(self.dtype), width);
            let status = e.int(Elem::I32, 0);
            e.op("llvm.return", &[status], &[], &[]);
            self.function(name, &parameters, Some(Elem::I32), true, region, location);
        }
    }

    /// Declares the data that holds a graph's constants.
    fn declare_constants(&mut self, name: &str) {
        let named = |n| Identifier::new(self.context, n);
        let byte = melior::ir::r#type::IntegerType::new(self.context, 8).into();
        let operation = OperationBuilder::new("llvm.mlir.global", self.unknown())
            .add_attributes(&[
                (named("sym_name"), StringAttribute::new(self.context, name).into()),
                (named("global_type"), TypeAttribute::new(byte).into()),
                (named("linkage"), self.attribute("#llvm.linkage<external>")),
                (named("constant"), Attribute::unit(self.context)),
            ])
            .add_regions([Region::new()])
            .build();
        if let Ok(operation) = operation {
            self.module.body().append_operation(operation);
        }
    }

    fn step(
        &mut self,
        name: &str,
        constants: &str,
        graph: &Graph,
        nodes: &[NodeId],
        has_loss: bool,
    ) -> Result<(), LowerError> {
        let location = self.unknown();
        let (region, block, arguments) = self.body(&[Parameter::Exclusive], location);
        let mut e = Emitter::new(self.context, location, block);
        let frame = self.frame(&mut e, arguments[0], constants);
        let mut step = Step {
            graph,
            frame,
            e,
            region,
            failures: Vec::new(),
        };
        let collectives = crate::schedule::collectives(graph)?;
        for (index, id) in crate::schedule::indexed(graph, nodes)? {
            step.e.location = self.location(&graph.node(id).name);
            match graph.op(id) {
                Op::Input(_) | Op::Parameter(_) | Op::Statistic(_) | Op::Constant(_) => {}
                Op::AllReduce(_) => {
                    let found = collectives.iter().position(|(other, _)| *other == id);
                    let collective = found.ok_or_else(|| LowerError::Internal {
                        message: format!("node {} is no collective of its graph", id.number()),
                    })?;
                    step.all_reduce(id, collective as i64)?;
                }
                _ => self.call_kernel(&mut step, id)?,
            }
            step.trace(id, index as i64)?;
        }
        if has_loss {
            step.write_loss()?;
        }
        let status = step.e.int(Elem::I32, 0);
        step.e.op("llvm.return", &[status], &[], &[]);
        for (block, status) in std::mem::take(&mut step.failures) {
            step.e.continue_in(block);
            step.e.op("llvm.return", &[status], &[], &[]);
        }
        self.function(
            name,
            &[Parameter::Exclusive],
            Some(Elem::I32),
            true,
            step.region,
            location,
        );
        Ok(())
    }

    fn frame(&mut self, e: &mut Emitter<'c>, arguments: Val<'c>, constants: &str) -> Frame<'c> {
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

    fn call_kernel(&mut self, step: &mut Step<'c, '_>, id: NodeId) -> Result<(), LowerError> {
        let graph = step.graph;
        let node = graph.node(id);
        let operands = graph.operands(id);
        let values: Vec<Value> = operands
            .iter()
            .copied()
            .chain((0..node.outputs.len()).map(|slot| Value { node: id, slot }))
            .collect();
        let places: Vec<(Location, u64)> = values
            .iter()
            .map(|&v| crate::schedule::place(graph, v))
            .collect::<Result<_, _>>()?;
        if matches!(node.op, Op::Reshape(_) | Op::Identity(_)) && places[0].0 == places[1].0 {
            return Ok(());
        }
        let overlaps: Vec<bool> = (0..places.len())
            .map(|i| (0..places.len()).any(|j| i != j && overlap(places[i], places[j])))
            .collect();
        let types: Vec<&TensorType> = values.iter().map(|&v| graph.ty(v)).collect();
        let (operand_types, result_types) = types.split_at(operands.len());
        let kernel = self.kernel(&node.op, operand_types, result_types, &overlaps, &node.name)?;
        let mut arguments = Vec::new();
        for &(location, _) in &places {
            arguments.push(step.pointer(location));
        }
        arguments.extend([step.frame.n, step.frame.total]);
        step.call(&kernel, &arguments, None);
        Ok(())
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
    fn trace(&mut self, id: NodeId, index: i64) -> Result<(), LowerError> {
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

    fn write_loss(&mut self) -> Result<(), LowerError> {
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
