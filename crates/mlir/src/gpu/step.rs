//! Host functions: the schedule of launches and collectives.

use std::mem::offset_of;

use melior::ir::Attribute;
use syncbn_abi::{GpuArguments, gpu_symbols};
use syncbn_ir::ops::Op;
use syncbn_ir::{Arena, DType, Location, NodeId};

use super::host::{BY_VALUE, INDEX};
use super::kernel::{Call, Launch, numbers_symbol};
use super::{KERNELS, Lowering, nccl};
use crate::LowerError;
use crate::cpu::Part;
use crate::emit::{Blocks, COPY_BYTES, Elem, Emitter, THREADS, Val, Work, ceil};
use crate::host::Step;

/// Reads a field of [`GpuArguments`].
macro_rules! field {
    ($e:expr, $arguments:expr, $name:ident) => {{
        let offset = $e.index(offset_of!(GpuArguments, $name) as i64);
        let address = $e.address($arguments, Elem::I8, offset);
        $e.load_scalar(address, Elem::Ptr)
    }};
}

/// What a step launches with.
struct Queue<'c> {
    stream: Val<'c>,
    gradient_stream: Val<'c>,
    communicators: Val<'c>,
    scratch: Val<'c>,
    n: Val<'c>,
}

impl<'c> Lowering<'c> {
    pub(super) fn step(
        &mut self,
        name: &str,
        part: Part,
        nodes: &[NodeId],
        has_loss: bool,
    ) -> Result<(), LowerError> {
        let functions = self.functions;
        let mut step = Step::new(&functions, part.graph, |e, arguments| {
            field!(e, arguments, constants)
        });
        let arguments = step.arguments;
        let queue = Queue {
            stream: field!(step.e, arguments, stream),
            gradient_stream: field!(step.e, arguments, gradient_stream),
            communicators: field!(step.e, arguments, communicators),
            scratch: step.pointer(Location {
                arena: Arena::Step,
                offset: part.step_bytes,
            }),
            n: step.e.convert(step.frame.n, Elem::I32),
        };
        let collectives = crate::schedule::collectives(part.graph)?;
        for (index, id) in crate::schedule::indexed(part.graph, nodes)? {
            step.e.location = functions.location(&part.graph.node(id).name);
            match part.graph.op(id) {
                Op::Input(_) | Op::Parameter(_) | Op::Statistic(_) | Op::Constant(_) => {}
                Op::AllReduce(_) => {
                    let number = crate::schedule::number(&collectives, id)?;
                    all_reduce(&mut step, &queue, id, number as i64)?;
                }
                _ => self.launch_node(&mut step, &queue, id)?,
            }
            let stream = match crate::schedule::sums_gradients(part.graph, id) {
                true => queue.gradient_stream,
                false => queue.stream,
            };
            step.trace(id, index as i64, |step, arguments| {
                let all = [&[stream], &arguments[..]].concat();
                step.call(gpu_symbols::TRACE, &all, None);
            })?;
        }
        if has_loss {
            step.call(
                gpu_symbols::STREAM_WAIT,
                &[queue.stream, queue.gradient_stream],
                None,
            );
            self.copy_loss(&mut step, &queue)?;
        }
        step.finish(&functions, name);
        Ok(())
    }

    fn launch_node(
        &mut self,
        step: &mut Step<'c, '_>,
        queue: &Queue<'c>,
        id: NodeId,
    ) -> Result<(), LowerError> {
        let Some(places) = step.places(id)? else {
            return Ok(());
        };
        let node = step.graph.node(id);
        let operands = step.graph.operands(id).len();
        let launches = self.launches(&Call {
            op: &node.op,
            types: &places.types,
            operands,
            overlaps: &places.overlaps,
            label: &node.name,
        })?;
        if step
            .graph
            .operands(id)
            .iter()
            .any(|&v| crate::schedule::sums_gradients(step.graph, v.node))
        {
            step.call(
                gpu_symbols::STREAM_WAIT,
                &[queue.stream, queue.gradient_stream],
                None,
            );
        }
        let mut arguments = Vec::new();
        for &location in &places.locations {
            arguments.push(step.pointer(location));
        }
        arguments.extend([queue.scratch, queue.n, step.frame.total]);
        for launch in launches {
            let n = step.frame.n;
            launch_kernel(&mut step.e, &launch, queue.stream, n, &arguments);
        }
        Ok(())
    }

    /// Copies the loss to where the runtime wants it, with a kernel, so that it keeps its place in the stream.
    fn copy_loss(&mut self, step: &mut Step<'c, '_>, queue: &Queue<'c>) -> Result<(), LowerError> {
        use syncbn_ir::TensorType;
        use syncbn_ir::ops::Identity;
        let ty = TensorType::fixed(DType::F64, &[1]);
        let from = step.loss()?;
        let launches = self.launches(&Call {
            op: &Op::Identity(Identity {}),
            types: &[&ty, &ty],
            operands: 1,
            overlaps: &[false, false],
            label: "loss",
        })?;
        let arguments = [from, step.frame.loss, queue.scratch, queue.n, step.frame.total];
        for launch in launches {
            let n = step.frame.n;
            launch_kernel(&mut step.e, &launch, queue.stream, n, &arguments);
        }
        Ok(())
    }

    /// The host function of an update, which launches one kernel, of this index, over all trained weights.
    pub(super) fn update_function(
        &mut self,
        function: &str,
        kernel: &str,
        index: i64,
    ) -> Result<(), LowerError> {
        let functions = self.functions;
        let empty = syncbn_ir::Graph::new("update");
        let mut step = Step::new(&functions, &empty, |e, arguments| field!(e, arguments, constants));
        let arguments = step.arguments;
        let (stream, update) = (
            field!(step.e, arguments, stream),
            field!(step.e, arguments, update),
        );
        let launch = Launch {
            name: kernel.to_string(),
            work: Work {
                fixed: ceil(self.trained_elements * self.dtype.bytes() as i64, COPY_BYTES),
                per_sample: 0,
            },
            blocks: Blocks::of_threads(THREADS),
            index,
            has_numbers: false,
        };
        let n = step.frame.n;
        launch_kernel(&mut step.e, &launch, stream, n, &[update]);
        step.finish(&functions, function);
        Ok(())
    }
}

/// `gpu.launch_func` on a stream, with as many blocks as `launch` needs for `n` samples.
fn launch_kernel<'c>(
    e: &mut Emitter<'c>,
    launch: &Launch,
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
    let kernel: Attribute<'c> = e.parse_attribute(&format!("@{KERNELS}::@{}", launch.name));
    let mut arguments = arguments.to_vec();
    let mut attributes = vec![("kernel", kernel), (INDEX, e.i64_attribute(launch.index))];
    if launch.has_numbers {
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
/// issue collectives in one order.
fn all_reduce<'c>(
    step: &mut Step<'c, '_>,
    queue: &Queue<'c>,
    id: NodeId,
    number: i64,
) -> Result<(), LowerError> {
    let segments = crate::schedule::segments(step.graph, id)?;
    let gradients = crate::schedule::sums_gradients(step.graph, id);
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
        nccl::group_start(&mut step.e);
    }
    for segment in &segments {
        let pointer = step.pointer(segment.location);
        let count = step.e.index(segment.elements as i64);
        nccl::all_reduce(&mut step.e, communicator, pointer, count, segment.dtype, stream)?;
    }
    if grouped {
        nccl::group_end(&mut step.e, stream);
    }
    step.e.jump(next);
    Ok(())
}
