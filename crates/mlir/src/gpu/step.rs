//! Host functions: the schedule of launches and collectives.

use std::mem::offset_of;

use melior::ir::Attribute;
use syncbn_abi::{GpuArguments, GpuKernel, gpu_symbols};
use syncbn_ir::ops::{Identity, Op};
use syncbn_ir::{Arena, DType, Graph, Location, NodeId, TensorType};

use super::host::{BY_VALUE, INDEX};
use super::kernel::numbers_symbol;
use super::launches::{Enqueued, Launch};
use super::{KERNELS, Lowering, nccl};
use crate::emit::{Blocks, Elem, Emitter, Val, ceil, fields};
use crate::error::LowerError;
use crate::host::{Call, Step, places};
use crate::order::{CollectiveNumbers, Piece};
use crate::program::Part;

/// What a step launches with.
struct Queue<'c> {
    stream: Val<'c>,
    gradient_stream: Val<'c>,
    communicators: Val<'c>,
    /// An address for kernels of nodes without a workspace, which touch nothing there.
    nowhere: Val<'c>,
    n: Val<'c>,
}

/// Whether an operator is computed by kernels.
fn has_kernels(op: &Op) -> bool {
    !matches!(
        op,
        Op::Input(_) | Op::Parameter(_) | Op::Statistic(_) | Op::Constant(_) | Op::AllReduce(_)
    )
}

fn loss_type() -> TensorType {
    TensorType::fixed(DType::F64, &[1])
}

/// The copy of the loss to where the runtime wants it.
fn copy_of_loss<'a>(types: &'a [&'a TensorType; 2]) -> Call<'a> {
    Call {
        op: &Op::Identity(Identity {}),
        types,
        operands: 1,
        overlaps: &[false, false],
        schedule: None,
        has_workspace: false,
        label: "loss",
    }
}

impl<'c> Lowering<'c> {
    /// Makes the kernels that a step launches.
    pub(super) fn kernels_of(&mut self, graph: &Graph, nodes: &[NodeId]) -> Result<(), LowerError> {
        for &id in nodes.iter().filter(|&&id| has_kernels(graph.op(id))) {
            if let Some(places) = places(graph, id)? {
                self.make_kernels(&Call::new(graph, id, &places))?;
            }
        }
        if crate::order::loss(graph).is_some() {
            let ty = loss_type();
            self.make_kernels(&copy_of_loss(&[&ty, &ty]))?;
        }
        Ok(())
    }

    pub(super) fn step(&mut self, name: &str, part: Part, nodes: &[NodeId]) -> Result<(), LowerError> {
        let functions = self.functions;
        let mut step = Step::new(&functions, part.graph, |e, arguments| {
            e.field(arguments, offset_of!(GpuArguments, constants), Elem::Ptr)
        });
        let [stream, gradient_stream, communicators] = fields!(
            step.e,
            step.arguments,
            GpuArguments,
            Ptr,
            [stream, gradient_stream, communicators]
        );
        let queue = Queue {
            stream,
            gradient_stream,
            communicators,
            nowhere: step.pointer(Location {
                arena: Arena::Step,
                offset: 0,
            }),
            n: step.e.convert(step.frame.n, Elem::I32),
        };
        let numbers = CollectiveNumbers::new(part.graph)?;
        for (index, id) in crate::order::indexed(part.graph, nodes)? {
            step.e.set_location(functions.location(&part.graph.node(id).name));
            match part.graph.op(id) {
                Op::AllReduce(_) => {
                    let number = numbers.of(id)?;
                    let bytes = all_reduce(&mut step, &queue, id, number as i64)?;
                    self.enqueued.push(Enqueued::AllReduce {
                        node: part.graph.node(id).name.clone(),
                        gradients: crate::order::sums_gradients(part.graph, id),
                        bytes,
                    });
                }
                op if has_kernels(op) => self.launch_node(&mut step, &queue, id)?,
                _ => {}
            }
            let stream = match crate::order::sums_gradients(part.graph, id) {
                true => queue.gradient_stream,
                false => queue.stream,
            };
            step.trace(
                id,
                index as i64,
                |step, arguments| {
                    let all = [&[stream], &arguments[..]].concat();
                    step.call(gpu_symbols::TRACE, &all, None);
                },
                |_| {},
            )?;
        }
        if crate::order::loss(part.graph).is_some() {
            step.call(
                gpu_symbols::STREAM_WAIT,
                &[queue.stream, queue.gradient_stream],
                None,
            );
            self.copy_loss(&mut step, &queue)?;
        }
        step.finish(&functions, name, true);
        self.end_entry_point(name);
        Ok(())
    }

    fn launch_node(
        &mut self,
        step: &mut Step<'c, '_>,
        queue: &Queue<'c>,
        id: NodeId,
    ) -> Result<(), LowerError> {
        let Some(places) = places(step.graph, id)? else {
            return Ok(());
        };
        if step
            .graph
            .operands(id)
            .iter()
            .any(|&v| crate::order::sums_gradients(step.graph, v.node))
        {
            step.call(
                gpu_symbols::STREAM_WAIT,
                &[queue.stream, queue.gradient_stream],
                None,
            );
        }
        let locations = places.locations.iter();
        let tensors: Vec<Val<'c>> = locations.map(|&location| step.pointer(location)).collect();
        let workspace = step.graph.node(id).workspace;
        let workspace = workspace.map_or(queue.nowhere, |location| step.pointer(location));
        self.launch(
            step,
            queue,
            &Call::new(step.graph, id, &places),
            (&tensors, workspace),
        )
    }

    /// Launches the kernels of an operator on tensors, with a workspace.
    fn launch(
        &mut self,
        step: &mut Step<'c, '_>,
        queue: &Queue<'c>,
        call: &Call,
        (tensors, workspace): (&[Val<'c>], Val<'c>),
    ) -> Result<(), LowerError> {
        let arguments = [tensors, &[workspace, queue.n, step.frame.total]].concat();
        for launch in self.launches(call)? {
            let kernel = &self.lowered.kernels[launch.index as usize];
            let n = step.frame.n;
            launch_kernel(&step.e, (&launch, kernel), queue.stream, n, &arguments);
            self.record(&launch, call.label, call.op.name());
        }
        Ok(())
    }

    /// Copies the loss to where the runtime wants it, with a kernel, so that it keeps its place in the stream.
    fn copy_loss(&mut self, step: &mut Step<'c, '_>, queue: &Queue<'c>) -> Result<(), LowerError> {
        let from = step.loss()?;
        let ty = loss_type();
        let tensors = [from, step.frame.loss];
        self.launch(step, queue, &copy_of_loss(&[&ty, &ty]), (&tensors, queue.nowhere))
    }
}

/// `gpu.launch_func` of a kernel on a stream, with as many blocks as `launch` needs for `n` samples.
pub(super) fn launch_kernel<'c>(
    e: &Emitter<'c>,
    (launch, kernel): (&Launch, &GpuKernel),
    stream: Val<'c>,
    n: Val<'c>,
    arguments: &[Val<'c>],
) {
    let Blocks {
        threads,
        takes,
        columns,
        planes,
        ..
    } = launch.blocks;
    let one = e.index(1);
    let blocks = if launch.work.per_sample == 0 {
        e.index(ceil(launch.work.fixed, takes) * columns)
    } else {
        let per = e.index(launch.work.per_sample);
        let mut work = e.mul(per, n);
        if launch.work.fixed > 0 {
            let fixed = e.index(launch.work.fixed);
            work = e.max(work, fixed);
        }
        let (size, above) = (e.index(takes), e.index(takes - 1));
        let blocks = e.add(work, above);
        let blocks = e.div(blocks, size);
        match columns {
            1 => blocks,
            _ => {
                let columns = e.index(columns);
                e.mul(blocks, columns)
            }
        }
    };
    let (threads, planes) = (e.index(i64::from(threads)), e.index(planes));
    let symbol: Attribute<'c> = e.parse_attribute(&format!("@{KERNELS}::@{}", kernel.name));
    let mut arguments = arguments.to_vec();
    let mut attributes = vec![("kernel", symbol), (INDEX, e.i64_attribute(launch.index))];
    if kernel.numbers > 0 {
        arguments.push(e.address_of(&numbers_symbol(launch.index), Elem::Ptr));
        attributes.push((BY_VALUE, Attribute::unit(e.context)));
    }
    let segments = e.i32_array(&[0, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, arguments.len() as i32, 1]);
    attributes.push(("operandSegmentSizes", segments));
    let operands = [
        &[blocks, one, planes, threads, one, one],
        &arguments[..],
        &[stream],
    ]
    .concat();
    e.op("gpu.launch_func", &operands, &[], &attributes);
}

/// The all-reduce of a node, in place, when there are several ranks. Gradients travel on their own stream:
/// it waits for what was computed so far, and the next collective of BatchNorm waits for it, so that all ranks
/// issue collectives in one order. Returns the bytes that it sums.
fn all_reduce<'c>(
    step: &mut Step<'c, '_>,
    queue: &Queue<'c>,
    id: NodeId,
    number: i64,
) -> Result<u64, LowerError> {
    let segments = crate::order::segments(step.graph, id)?;
    let gradients = crate::order::sums_gradients(step.graph, id);
    let (reduce, next) = (step.new_block(), step.new_block());
    let several = step.frame.several;
    step.e.branch(several, reduce, next, reduce);
    let (stream, other) = match gradients {
        true => (queue.gradient_stream, queue.stream),
        false => (queue.stream, queue.gradient_stream),
    };
    step.call(gpu_symbols::STREAM_WAIT, &[stream, other], None);
    let offset = step.e.index(number);
    let slot = step.e.address(queue.communicators, Elem::Ptr, offset);
    let communicator = step.e.load_scalar(slot, Elem::Ptr);
    let grouped = segments.len() > 1;
    if grouped {
        nccl::group_start(&step.e);
    }
    for segment in &segments {
        let pointer = step.pointer(segment.location);
        let count = step.e.index(segment.elements as i64);
        nccl::all_reduce(&step.e, communicator, pointer, count, segment.dtype, stream)?;
    }
    if grouped {
        nccl::group_end(&step.e, stream);
    }
    step.e.jump(next);
    let bytes = |piece: &Piece| piece.elements * piece.dtype.bytes();
    Ok(segments.iter().map(bytes).sum())
}
