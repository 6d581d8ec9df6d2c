//! Step functions: the schedule of kernels and collectives over the planned memory.

use syncbn_abi::{StepArguments, symbols};
use syncbn_ir::ops::Op;
use syncbn_ir::{Graph, NodeId};

use super::collective::all_reduce;
use super::{Lowering, update_width};
use crate::emit::{Compare, Elem, Emitter, Val, fields};
use crate::error::LowerError;
use crate::host::{Call, Frame, Parameter, Step, places};
use crate::ops::update;
use crate::order::CollectiveNumbers;
use crate::program::Part;

/// Nodes that one function calls the kernels of; a longer step is several functions. LLVM's time grows faster than a
/// function does.
const PART_NODES: usize = 64;

/// The threads that run a step together.
#[derive(Clone, Copy)]
struct Crew<'c> {
    /// Number of this thread, and how many there are.
    thread: Val<'c>,
    threads: Val<'c>,
    /// Whether this is the first one.
    is_first: Val<'c>,
    /// Memory of this thread's own; the first one has none.
    scratch: Val<'c>,
    /// Memory for parts of sums, which the threads share.
    partials: Val<'c>,
}

impl<'c> Crew<'c> {
    /// Reads what the step's arguments hold.
    fn new(e: &Emitter<'c>, arguments: Val<'c>) -> Crew<'c> {
        let [thread, threads] = fields!(e, arguments, StepArguments, I64, [thread, threads]);
        let [scratch, partials] = fields!(e, arguments, StepArguments, Ptr, [scratch, partials]);
        Crew {
            thread,
            threads,
            is_first: e.compare(Compare::Eq, thread, e.index(0)),
            scratch,
            partials,
        }
    }
}

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
            let crew = Crew::new(&step.e, step.arguments);
            self.calls(&mut step, crew, &collectives, part)?;
            parts.push(format!("{name}.{i}"));
            step.finish(&functions, &parts[i], false);
        }
        let mut step = start();
        for part in &parts {
            let (arguments, next) = ([step.arguments], step.new_block());
            step.call_or_fail(part, &arguments, next);
        }
        let crew = Crew::new(&step.e, step.arguments);
        self.calls(&mut step, crew, &collectives, last)?;
        if crate::order::loss(graph).is_some() {
            let from = step.loss()?;
            step.e.when(crew.is_first, |e| {
                let value = e.load_scalar(from, Elem::F64);
                e.store_scalar(step.frame.loss, value);
            });
        }
        step.finish(&functions, name, true);
        Ok(())
    }

    /// Calls the kernels and collectives of nodes, each with its index in the graph's order.
    fn calls(
        &mut self,
        step: &mut Step<'c, '_>,
        crew: Crew<'c>,
        collectives: &CollectiveNumbers,
        nodes: &[(usize, NodeId)],
    ) -> Result<(), LowerError> {
        for &(index, id) in nodes {
            step.e
                .set_location(self.functions.location(&step.graph.node(id).name));
            match step.graph.op(id) {
                Op::Input(_) | Op::Parameter(_) | Op::Statistic(_) | Op::Constant(_) => {}
                Op::AllReduce(_) => {
                    all_reduce(step, crew.is_first, id, collectives.of(id)? as i64)?;
                    meet(step);
                }
                _ => {
                    if self.call_kernel(step, crew, id)? {
                        meet(step);
                    }
                }
            }
            let show = |step: &mut Step<'c, '_>, arguments: [Val<'c>; 5]| {
                step.e.when(crew.is_first, |e| {
                    e.call(symbols::TRACE, &arguments, None);
                });
            };
            // The next node may overwrite what the first thread looks at.
            step.trace(id, index as i64, show, |step| {
                let context = [step.frame.context];
                step.call(symbols::TEAM_BARRIER, &context, Some(Elem::I32));
            })?;
        }
        Ok(())
    }

    /// Calls the kernel of a node, and says whether it has one.
    fn call_kernel(
        &mut self,
        step: &mut Step<'c, '_>,
        crew: Crew<'c>,
        id: NodeId,
    ) -> Result<bool, LowerError> {
        let Some(places) = places(step.graph, id)? else {
            return Ok(false);
        };
        let call = Call::new(step.graph, id, &places);
        let kernel = self.kernel(&call)?;
        let mut arguments = Vec::new();
        for &location in &places.locations {
            arguments.push(step.pointer(location));
        }
        if let Some(workspace) = step.graph.node(id).workspace {
            let common = step.pointer(workspace);
            let own = step.e.choose_address(crew.is_first, common, crew.scratch);
            arguments.extend([common, own]);
        }
        if call.has_partials() {
            arguments.push(crew.partials);
        }
        let Frame {
            context, n, total, ..
        } = step.frame;
        arguments.extend([context, n, total, crew.thread, crew.threads]);
        step.call(&kernel, &arguments, None);
        Ok(true)
    }
}

/// Waits for the other threads; ends the step where one of them failed.
fn meet(step: &mut Step) {
    let (context, next) = (step.frame.context, step.new_block());
    step.call_or_fail(symbols::TEAM_BARRIER, &[context], next);
}
