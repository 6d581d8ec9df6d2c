//! Step functions: the schedule of kernels and collectives over the planned memory.

use melior::ir::attribute::{StringAttribute, TypeAttribute};
use melior::ir::block::BlockLike;
use melior::ir::operation::OperationBuilder;
use melior::ir::{Attribute, Identifier, Region};
use syncbn_abi::symbols;
use syncbn_ir::ops::Op;
use syncbn_ir::{Graph, Location, NodeId, TensorType, Value};

use super::frame::Step;
use super::function::Parameter;
use super::{Lowering, Part, update, update_width};
use crate::LowerError;
use crate::emit::{Elem, Emitter};
use crate::schedule::overlap;

/// Constants of the training graph.
pub const TRAIN_CONSTANTS: &str = "syncbn_train_constants";
/// Constants of the inference graph.
pub const INFER_CONSTANTS: &str = "syncbn_infer_constants";

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
