//! A step function under construction: what it reads from its arguments, calls, places, traces.

use melior::ir::{Block, BlockRef, Region, RegionLike};
use syncbn_abi::{StepArguments, StoredType};
use syncbn_ir::ops::Op;
use syncbn_ir::{Arena, DType, Graph, Location, NodeId, TensorType, Value};

use super::function::{Functions, Parameter};
use crate::emit::{Compare, Elem, Emitter, Val, fields};
use crate::error::LowerError;
use crate::handle;
use crate::order::overlap;

/// Pointers and sizes that a step function reads from its arguments once.
pub struct Frame<'c> {
    pub context: Val<'c>,
    arenas: Vec<(Arena, Val<'c>)>,
    inputs: Val<'c>,
    outputs: Val<'c>,
    /// Where the loss goes.
    pub loss: Val<'c>,
    pub n: Val<'c>,
    pub total: Val<'c>,
    trace: Val<'c>,
    pub several: Val<'c>,
}

/// A step function under construction.
pub struct Step<'c, 'g> {
    pub graph: &'g Graph,
    /// The function's parameter.
    pub arguments: Val<'c>,
    pub frame: Frame<'c>,
    pub e: Emitter<'c>,
    pub region: Region<'c>,
    /// Status to return, by the block that returns it.
    pub failures: Vec<(BlockRef<'c, 'c>, Val<'c>)>,
}

/// Operands and then results of a node.
pub struct Places<'g> {
    /// Their types.
    pub types: Vec<&'g TensorType>,
    /// Where they lie.
    pub locations: Vec<Location>,
    /// Whether each overlaps another one.
    pub overlaps: Vec<bool>,
}

impl<'c> Frame<'c> {
    /// Reads what `arguments`, a [`StepArguments`], holds. `constants` is the address of the graph's constants.
    fn new(e: &Emitter<'c>, arguments: Val<'c>, constants: Val<'c>) -> Frame<'c> {
        type Of = StepArguments;
        let [ranks] = fields!(e, arguments, Of, I64, [ranks]);
        let one = e.index(1);
        let [context, weights, gradients, statistics, prepared, step] = fields!(
            e,
            arguments,
            Of,
            Ptr,
            [context, weights, gradients, statistics, prepared, step]
        );
        let [inputs, outputs, loss] = fields!(e, arguments, Of, Ptr, [inputs, outputs, loss]);
        let [n, total, trace] = fields!(e, arguments, Of, I64, [n, total, trace]);
        Frame {
            context,
            arenas: vec![
                (Arena::Weights, weights),
                (Arena::Gradients, gradients),
                (Arena::Statistics, statistics),
                (Arena::Prepared, prepared),
                (Arena::Step, step),
                (Arena::Constants, constants),
            ],
            inputs,
            outputs,
            loss,
            n,
            total,
            trace,
            several: e.compare(Compare::Gt, ranks, one),
        }
    }
}

impl<'c, 'g> Step<'c, 'g> {
    /// A step function of one parameter. `constants` makes the address of the graph's constants from it.
    pub fn new(
        functions: &Functions<'c>,
        graph: &'g Graph,
        constants: impl FnOnce(&Emitter<'c>, Val<'c>) -> Val<'c>,
    ) -> Step<'c, 'g> {
        let location = functions.unknown();
        let (region, block, arguments) = functions.body(&[Parameter::Exclusive], location);
        let e = Emitter::new(functions.context, location, block);
        e.share_constants();
        let constants = constants(&e, arguments[0]);
        let frame = Frame::new(&e, arguments[0], constants);
        Step {
            graph,
            arguments: arguments[0],
            frame,
            e,
            region,
            failures: Vec::new(),
        }
    }

    /// Ends the function and adds it to the module; others see it when it is `public`.
    pub fn finish(mut self, functions: &Functions<'c>, name: &str, public: bool) {
        let status = self.e.int(Elem::I32, 0);
        self.e.op("llvm.return", &[status], &[], &[]);
        for (block, status) in std::mem::take(&mut self.failures) {
            self.e.continue_in(block);
            self.e.op("llvm.return", &[status], &[], &[]);
        }
        let parameters = [Parameter::Exclusive];
        functions.define(
            name,
            &parameters,
            Some(Elem::I32),
            public,
            self.region,
            functions.unknown(),
        );
    }
}

/// Places of a node's operands and results, or None for a node that does nothing because its result lies
/// where its operand does.
pub fn places(graph: &Graph, id: NodeId) -> Result<Option<Places<'_>>, LowerError> {
    let node = graph.node(id);
    let values: Vec<Value> = graph
        .operands(id)
        .into_iter()
        .chain((0..node.outputs.len()).map(|slot| Value { node: id, slot }))
        .collect();
    let places: Vec<(Location, u64)> = values
        .iter()
        .map(|&v| crate::order::place(graph, v))
        .collect::<Result<_, _>>()?;
    if matches!(node.op, Op::Reshape(_) | Op::Identity(_)) && places[0].0 == places[1].0 {
        return Ok(None);
    }
    let overlaps = (0..places.len())
        .map(|i| (0..places.len()).any(|j| i != j && overlap(places[i], places[j])))
        .collect();
    Ok(Some(Places {
        types: values.iter().map(|&v| graph.ty(v)).collect(),
        locations: places.into_iter().map(|(location, _)| location).collect(),
        overlaps,
    }))
}

impl<'c> Step<'c, '_> {
    pub fn call(&mut self, name: &str, arguments: &[Val<'c>], result: Option<Elem>) -> Option<Val<'c>> {
        self.e.call(name, arguments, result)
    }

    /// Calls a function that returns a status, and returns that at once unless it is 0; goes on in `next`.
    pub fn call_or_fail(&mut self, name: &str, arguments: &[Val<'c>], next: BlockRef<'c, 'c>) {
        let failed = self.new_block();
        let Some(status) = self.call(name, arguments, Some(Elem::I32)) else {
            unreachable!("the call has a result")
        };
        let zero = self.e.int(Elem::I32, 0);
        let ok = self.e.compare(Compare::Eq, status, zero);
        self.e.branch(ok, next, failed, next);
        self.failures.push((failed, status));
    }

    pub fn pointer(&mut self, location: Location) -> Val<'c> {
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

    pub fn new_block(&self) -> BlockRef<'c, 'c> {
        handle::block(&*self.region.append_block(Block::new(&[])))
    }

    /// Shows every floating-point result to the runtime when it asks for it: `show_output` calls it with context, node,
    /// output, data and number of elements, and `then` stands behind the last output.
    pub fn trace(
        &mut self,
        id: NodeId,
        index: i64,
        show_output: impl Fn(&mut Self, [Val<'c>; 5]),
        then: impl FnOnce(&mut Self),
    ) -> Result<(), LowerError> {
        let node = self.graph.node(id);
        let is_source = matches!(
            node.op,
            Op::Input(_) | Op::Parameter(_) | Op::Statistic(_) | Op::Constant(_)
        );
        if is_source {
            return Ok(());
        }
        let zero = self.e.index(0);
        let frame_trace = self.frame.trace;
        let (show, next) = (self.new_block(), self.new_block());
        let wanted = self.e.compare(Compare::Ne, frame_trace, zero);
        self.e.branch(wanted, show, next, show);
        for (slot, output) in node.outputs.iter().enumerate() {
            let (location, _) = crate::order::place(self.graph, Value { node: id, slot })?;
            let per_sample = self
                .e
                .index(output.ty.stored_elements_per_sample().unwrap_or(0) as i64);
            let elements = match output.ty.shape.has_batch() {
                true => self.e.mul(per_sample, self.frame.n),
                false => per_sample,
            };
            let pointer = self.pointer(location);
            let element_type = match output.ty.dtype {
                DType::F32 => StoredType::F32,
                DType::F64 => StoredType::F64,
                DType::BF16 => StoredType::BF16,
                DType::I64 | DType::U8 => continue,
            };
            let index = self.e.index(index);
            let output = self.e.index(syncbn_abi::trace_output(slot as u32, element_type));
            show_output(self, [self.frame.context, index, output, pointer, elements]);
        }
        then(self);
        self.e.jump(next);
        Ok(())
    }

    /// Address of the loss in the step's memory.
    pub fn loss(&mut self) -> Result<Val<'c>, LowerError> {
        let loss = crate::order::loss(self.graph).ok_or_else(|| LowerError::Internal {
            message: "no loss in the graph".into(),
        })?;
        let (location, _) = crate::order::place(self.graph, loss)?;
        Ok(self.pointer(location))
    }
}
