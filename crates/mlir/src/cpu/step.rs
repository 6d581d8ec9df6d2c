//! Step functions: the schedule of kernels and collectives over the planned memory.

use syncbn_abi::symbols;
use syncbn_ir::ops::Op;
use syncbn_ir::{Graph, NodeId};

use super::collective::all_reduce;
use super::{Lowering, update_width};
use crate::emit::{Elem, Emitter};
use crate::error::LowerError;
use crate::host::{Call, Parameter, Step, places};
use crate::ops::update;
use crate::order::CollectiveNumbers;
use crate::program::Part;

/// Nodes that one function calls the kernels of; a longer step is several functions. LLVM's time grows faster than a
/// function does.
const PART_NODES: usize = 64;

impl<'c> Lowering<'c> {
    /// The training step and the updates.
    pub(super) fn training(&mut self, part: Part) -> Result<(), LowerError> {
        self.functions.declare_constants(symbols::TRAIN_CONSTANTS);
        self.step(
            symbols::TRAIN_STEP,
            symbols::TRAIN_CONSTANTS,
            part.graph,
            part.step,
        )?;
        self.updates();
        Ok(())
    }

    /// Preparation and inference.
    pub(super) fn inference(&mut self, part: Part) -> Result<(), LowerError> {
        self.functions.declare_constants(symbols::INFER_CONSTANTS);
        self.step(
            symbols::INFER_PREPARE,
            symbols::INFER_CONSTANTS,
            part.graph,
            part.prepare,
        )?;
        self.step(
            symbols::INFER_STEP,
            symbols::INFER_CONSTANTS,
            part.graph,
            part.step,
        )
    }

    /// The update of each optimiser.
    fn updates(&mut self) {
        let location = self.functions.unknown();
        let width = update_width(self.vector_bytes, self.dtype);
        let updates: [(&str, update::Build<'c>); 2] = [
            (symbols::UPDATE_SGD, update::sgd),
            (symbols::UPDATE_ADAMW, update::adamw),
        ];
        for (name, build) in updates {
            let parameters = [Parameter::Exclusive];
            let (region, block, arguments) = self.functions.body(&parameters, location);
            let e = Emitter::new(self.functions.context, location, block);
            build(&e, arguments[0], super::elem(self.dtype), width);
            let status = e.int(Elem::I32, 0);
            e.op("llvm.return", &[status], &[], &[]);
            self.functions
                .define(name, &parameters, Some(Elem::I32), true, region, location);
        }
    }

    fn step(
        &mut self,
        name: &str,
        constants: &str,
        graph: &Graph,
        nodes: &[NodeId],
    ) -> Result<(), LowerError> {
        let functions = self.functions;
        let start = || Step::new(&functions, graph, |e, _| e.address_of(constants, Elem::Ptr));
        let collectives = CollectiveNumbers::new(graph)?;
        let nodes = crate::order::indexed(graph, nodes)?;
        let mut parts = Vec::new();
        let (before, last) = nodes.split_at(nodes.len().saturating_sub(1) / PART_NODES * PART_NODES);
        for (i, part) in before.chunks(PART_NODES).enumerate() {
            let mut step = start();
            self.calls(&mut step, &collectives, part)?;
            parts.push(format!("{name}.{i}"));
            step.finish(&functions, &parts[i], false);
        }
        let mut step = start();
        for part in &parts {
            let (arguments, next) = ([step.arguments], step.new_block());
            step.call_or_fail(part, &arguments, next);
        }
        self.calls(&mut step, &collectives, last)?;
        if crate::order::loss(graph).is_some() {
            let from = step.loss()?;
            let value = step.e.load_scalar(from, Elem::F64);
            step.e.store_scalar(step.frame.loss, value);
        }
        step.finish(&functions, name, true);
        Ok(())
    }

    /// Calls the kernels and collectives of nodes, each with its index in the graph's order.
    fn calls(
        &mut self,
        step: &mut Step<'c, '_>,
        collectives: &CollectiveNumbers,
        nodes: &[(usize, NodeId)],
    ) -> Result<(), LowerError> {
        for &(index, id) in nodes {
            step.e
                .set_location(self.functions.location(&step.graph.node(id).name));
            match step.graph.op(id) {
                Op::Input(_) | Op::Parameter(_) | Op::Statistic(_) | Op::Constant(_) => {}
                Op::AllReduce(_) => {
                    all_reduce(step, id, collectives.of(id)? as i64)?;
                }
                _ => self.call_kernel(step, id)?,
            }
            step.trace(id, index as i64, |step, arguments| {
                step.call(symbols::TRACE, &arguments, None);
            })?;
        }
        Ok(())
    }

    fn call_kernel(&mut self, step: &mut Step<'c, '_>, id: NodeId) -> Result<(), LowerError> {
        let Some(places) = places(step.graph, id)? else {
            return Ok(());
        };
        let kernel = self.kernel(&Call::new(step.graph, id, &places))?;
        let mut arguments = Vec::new();
        for &location in &places.locations {
            arguments.push(step.pointer(location));
        }
        if let Some(workspace) = step.graph.node(id).workspace {
            arguments.push(step.pointer(workspace));
        }
        arguments.extend([step.frame.n, step.frame.total]);
        step.call(&kernel, &arguments, None);
        Ok(())
    }
}
