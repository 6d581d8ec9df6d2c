//! Host code to calls: `gpu.launch_func` and the `nccl` operations become calls of the runtime.
//!
//! Before:
//!
//! ```text
//! gpu.launch_func <%stream : !llvm.ptr> @kernels::@conv_0 blocks in (%b, %1, %1) threads in (%t, %1, %1)
//!     args(%x, %n, %numbers) {syncbn.kernel = 0, syncbn.numbers_by_value}
//! nccl.all_reduce(%comm, %p, %p, %count, %stream) {datatype = f64, redop = "sum"}
//! ```
//!
//! After:
//!
//! ```text
//! %values, %table = llvm.alloca ...       // once a function: one slot a parameter, and a table of their addresses
//! llvm.store ...                          // the arguments
//! llvm.call @syncbn_rt_launch(%stream, 0, %b, %1, %1, %table)
//! %status = llvm.call @ncclAllReduce(%p, %p, %count, 8, 0, %comm, %stream)
//! llvm.call @syncbn_rt_nccl_check(%stream, %status)
//! ```
//!
//! The runtime knows a kernel by its index, so no name is looked up in a step. Launches with other open numbers of one
//! kernel have indices of their own. The numbers lie in constant memory, and the table has their own address
//! for the launch, since the kernel takes them by value. A launch reads its arguments before it returns, so all launches
//! of a function share slots and table. MLIR's own `gpu-to-llvm` would load
//! modules in constructors that run before `main`, also on machines without a GPU.

use std::ops::Range;

use melior::Context;
use melior::ir::attribute::{IntegerAttribute, TypeAttribute};
use melior::ir::block::BlockLike;
use melior::ir::operation::{OperationLike, OperationRef};
use melior::ir::{Attribute, BlockRef, Module, ValueLike};
use syncbn_abi::{NCCL_FLOAT32, NCCL_FLOAT64, NCCL_SUM, gpu_symbols};

use crate::emit::{Elem, Emitter, Val};
use crate::error::LowerError;
use crate::handle;
use crate::host::{Functions, Parameter};

/// Attribute of a launch: the kernel's index, an i64.
pub const INDEX: &str = "syncbn.kernel";
/// Attribute of a launch: its last argument is the address of what the kernel takes by value.
pub const BY_VALUE: &str = "syncbn.numbers_by_value";

/// Rewrites all host functions of a module and removes its `gpu.module`.
pub fn rewrite(context: &Context, module: &Module) -> Result<(), LowerError> {
    handle::build(context, module, |context, module| {
        Rewriter { context }.module(module)
    })
}

struct Rewriter<'c> {
    context: &'c Context,
}

impl<'c> Rewriter<'c> {
    fn module(&self, module: &'c Module<'c>) -> Result<(), LowerError> {
        use Parameter::{Index, Shared, Size};
        let functions = Functions::new(self.context, module);
        let launch = [Shared, Size, Size, Size, Size, Shared];
        functions.declare(gpu_symbols::LAUNCH, &launch, None);
        let all_reduce = [Shared, Shared, Size, Index, Index, Shared, Shared];
        functions.declare(gpu_symbols::NCCL_ALL_REDUCE, &all_reduce, Some(Elem::I32));
        functions.declare(gpu_symbols::NCCL_GROUP_START, &[], Some(Elem::I32));
        functions.declare(gpu_symbols::NCCL_GROUP_END, &[], Some(Elem::I32));
        functions.declare(gpu_symbols::NCCL_CHECK, &[Shared, Index], None);
        let mut next = module.body().first_operation();
        while let Some(operation) = next {
            next = operation.next_in_block();
            if is(&operation, "gpu.module") {
                handle::erase(operation);
                continue;
            }
            for region in operation.regions() {
                let blocks = handle::blocks(&region);
                let room = self.room(&blocks);
                for block in blocks {
                    self.block(block, room.as_ref())?;
                }
            }
        }
        Ok(())
    }

    /// Room for the arguments of any launch of a function; None where it launches nothing.
    fn room(&self, blocks: &[BlockRef<'c, 'c>]) -> Option<Room<'c>> {
        let mut most = None;
        for block in blocks {
            let mut next = block.first_operation();
            while let Some(operation) = next {
                next = operation.next_in_block();
                if is(&operation, LAUNCH) {
                    most = most.max(Some(arguments(&operation).len()));
                }
            }
        }
        let entry = blocks.first()?;
        let first = handle::operation(entry.first_operation()?);
        let e = Emitter::before(self.context, *entry, first);
        Some(Room::new(&e, most?))
    }

    fn block(&self, block: BlockRef<'c, 'c>, room: Option<&Room<'c>>) -> Result<(), LowerError> {
        let mut next = block.first_operation();
        while let Some(operation) = next {
            next = operation.next_in_block();
            let operation = handle::operation(operation);
            let e = Emitter::before(self.context, block, operation);
            match operation.name().as_string_ref().as_str() {
                Ok(LAUNCH) => {
                    let room = room.ok_or_else(|| bug("no room for a launch's arguments".to_string()))?;
                    launch(&e, operation, room)?;
                }
                Ok("nccl.all_reduce") => all_reduce(&e, operation)?,
                Ok("nccl.group_start") => {
                    e.call(gpu_symbols::NCCL_GROUP_START, &[], Some(Elem::I32));
                }
                Ok("nccl.group_end") => {
                    let status = e.call(gpu_symbols::NCCL_GROUP_END, &[], Some(Elem::I32));
                    let stream = operand(operation, 0, Elem::Ptr)?;
                    let arguments: Vec<Val<'c>> = [stream].into_iter().chain(status).collect();
                    e.call(gpu_symbols::NCCL_CHECK, &arguments, None);
                }
                _ => continue,
            }
            handle::erase(operation);
        }
        Ok(())
    }
}

const LAUNCH: &str = "gpu.launch_func";

/// The operands of a launch that are its kernel's arguments. Six sizes come first, the stream last.
fn arguments(launch: &OperationRef) -> Range<usize> {
    6..launch.operand_count().saturating_sub(1).max(6)
}

/// Where the launches of a function put their arguments.
struct Room<'c> {
    /// Addresses of an argument, and of this address in the table.
    slots: Vec<(Val<'c>, Val<'c>)>,
    /// Address of the arguments' addresses.
    table: Val<'c>,
}

impl<'c> Room<'c> {
    fn new(e: &Emitter<'c>, most: usize) -> Room<'c> {
        let count = e.index(most as i64);
        let (values, table) = (on_stack(e, count), on_stack(e, count));
        let slots = (0..most as i64).map(|i| {
            let i = e.index(i);
            let slot = e.address(values, Elem::Ptr, i);
            let entry = e.address(table, Elem::Ptr, i);
            e.store_scalar(entry, slot);
            (slot, entry)
        });
        let slots = slots.collect();
        Room { slots, table }
    }
}

/// An array of `count` pointers on the stack.
fn on_stack<'c>(e: &Emitter<'c>, count: Val<'c>) -> Val<'c> {
    let pointer = e.ty(Elem::Ptr, 1);
    let elem_type: Attribute<'c> = TypeAttribute::new(pointer).into();
    let alignment = e.i64_attribute(8);
    let attributes = [("elem_type", elem_type), ("alignment", alignment)];
    e.op1("llvm.alloca", &[count], (Elem::Ptr, 1), &attributes)
}

fn launch<'c>(e: &Emitter<'c>, operation: OperationRef<'c, 'c>, room: &Room<'c>) -> Result<(), LowerError> {
    let kernel = operation.attribute(INDEX).ok();
    let kernel = kernel.and_then(|index| IntegerAttribute::try_from(index).ok());
    let kernel = kernel
        .ok_or_else(|| bug(format!("{operation} says no kernel")))?
        .value();
    let by_value = operation.has_attribute(BY_VALUE);
    let arguments = arguments(&operation);
    let last = arguments.end - 1;
    let mut borrowed = None;
    for (i, &(slot, entry)) in arguments.clone().zip(&room.slots) {
        let value = operation.operand(i).map_err(|e| bug(e.to_string()))?;
        let elem = match value.r#type() {
            ty if ty == e.ty(Elem::I32, 1) => Elem::I32,
            ty if ty == e.ty(Elem::I64, 1) => Elem::I64,
            _ => Elem::Ptr,
        };
        let value = operand(operation, i, elem)?;
        if by_value && i == last {
            e.store_scalar(entry, value);
            borrowed = Some((slot, entry));
        } else {
            e.store_scalar(slot, value);
        }
    }
    let stream = operand(operation, arguments.end, Elem::Ptr)?;
    let mut values = vec![stream, e.index(kernel)];
    for i in 0..3 {
        values.push(operand(operation, i, Elem::I64)?);
    }
    values.push(room.table);
    e.call(gpu_symbols::LAUNCH, &values, None);
    if let Some((slot, entry)) = borrowed {
        e.store_scalar(entry, slot);
    }
    Ok(())
}

fn all_reduce<'c>(e: &Emitter<'c>, operation: OperationRef<'c, 'c>) -> Result<(), LowerError> {
    let cast = operation.operand(0).map_err(|e| bug(e.to_string()))?;
    let cast = handle::defining(cast).ok_or_else(|| bug("a communicator has no origin".to_string()))?;
    let communicator = operand(cast, 0, Elem::Ptr)?;
    let [send, receive, count, stream] = [
        operand(operation, 1, Elem::Ptr)?,
        operand(operation, 2, Elem::Ptr)?,
        operand(operation, 3, Elem::I64)?,
        operand(operation, 4, Elem::Ptr)?,
    ];
    let datatype = operation.attribute("datatype").map(|a| a.to_string());
    let datatype = match datatype.as_deref() {
        Ok("f32") => NCCL_FLOAT32,
        Ok("f64") => NCCL_FLOAT64,
        other => return Err(bug(format!("an all-reduce of {other:?}"))),
    };
    let (datatype, sum) = (
        e.int(Elem::I32, i64::from(datatype)),
        e.int(Elem::I32, i64::from(NCCL_SUM)),
    );
    let arguments = [send, receive, count, datatype, sum, communicator, stream];
    let status = e.call(gpu_symbols::NCCL_ALL_REDUCE, &arguments, Some(Elem::I32));
    let arguments: Vec<Val<'c>> = [stream].into_iter().chain(status).collect();
    e.call(gpu_symbols::NCCL_CHECK, &arguments, None);
    Ok(())
}

fn operand<'c>(operation: OperationRef<'c, 'c>, i: usize, elem: Elem) -> Result<Val<'c>, LowerError> {
    let value = operation.operand(i).map_err(|e| bug(e.to_string()))?;
    Ok(Val {
        value: handle::value(value),
        elem,
        lanes: 1,
    })
}

fn is(operation: &OperationRef, name: &str) -> bool {
    operation.name().as_string_ref().as_str() == Ok(name)
}

fn bug(message: String) -> LowerError {
    LowerError::Internal { message }
}
