//! Lifetimes of MLIR handles. melior ties a value to the borrow of the block that holds it; the emitter keeps
//! values while it moves blocks into regions and regions into operations, which never moves what a handle
//! points to. The functions here widen those borrows to the context's lifetime.
//!
//! The invariant that makes them sound: no handle is used once the operation that it belongs to is erased, or the region
//! that holds it is dropped. The module under construction outlives its emitters, and what erases operations keeps no
//! handle to them.

use std::ffi::c_void;
use std::ptr::NonNull;

use melior::Context;
use melior::StringRef;
use melior::ir::block::BlockLike;
use melior::ir::operation::{Operation, OperationLike, OperationRef, OperationResult};
use melior::ir::{Attribute, AttributeLike, BlockRef, Module, Region, RegionLike, Value, ValueLike};

/// An operation's result, for as long as the module is being built.
pub fn result<'c>(result: OperationResult<'c, '_>) -> Value<'c, 'c> {
    // SAFETY: the operation stands in a block of the module under construction, which outlives the emitter.
    unsafe { Value::from_raw(result.to_raw()) }
}

/// A block argument or other value, for as long as the module is being built.
pub fn value<'c>(value: impl ValueLike<'c>) -> Value<'c, 'c> {
    // SAFETY: as above.
    unsafe { Value::from_raw(value.to_raw()) }
}

/// A block that a region of the module under construction owns, or will own once its operation is built.
pub fn block<'c, 'a>(block: &(impl BlockLike<'c, 'a> + ?Sized)) -> BlockRef<'c, 'c>
where
    'c: 'a,
{
    // SAFETY: moving a block into a region, or a region into an operation, leaves the block where it is.
    unsafe { BlockRef::from_raw(block.to_raw()) }
}

/// An operation of the module under construction.
pub fn operation<'c>(operation: OperationRef<'c, '_>) -> OperationRef<'c, 'c> {
    // SAFETY: the operation stands in the module under construction, which outlives the emitter.
    unsafe { OperationRef::from_raw(operation.to_raw()) }
}

/// What tells an operation from all others, for as long as it is there.
pub fn address(operation: OperationRef) -> usize {
    operation.to_raw().ptr as usize
}

/// The operation that a value is a result of.
pub fn defining<'c>(value: Value<'c, '_>) -> Option<OperationRef<'c, 'c>> {
    let result = OperationResult::try_from(value).ok()?;
    // SAFETY: as above.
    Some(unsafe { OperationRef::from_raw(result.owner().to_raw()) })
}

/// The blocks of a region of the module under construction, in order.
pub fn blocks<'c: 'a, 'a>(region: &impl RegionLike<'c, 'a>) -> Vec<BlockRef<'c, 'c>> {
    let mut all = Vec::new();
    let mut next = region.first_block();
    while let Some(current) = next {
        all.push(block(&*current));
        next = current.next_in_region();
    }
    all
}

/// The region of an operation that was built to hold it for a while; an empty one if it has none.
pub fn take_region<'c>(holder: Operation<'c>) -> Region<'c> {
    let region = Region::new();
    if let Ok(held) = holder.region(0) {
        // SAFETY: both regions are live. Blocks stay where they are.
        unsafe { mlir_sys::mlirRegionTakeBody(region.to_raw(), held.to_raw()) };
    }
    region
}

/// Has everything that uses an operation's one result use another value of its type, and removes the operation, which
/// the caller does not use any more.
pub fn replace<'c>(operation: OperationRef<'c, '_>, by: Value<'c, '_>) {
    if let Ok(result) = operation.result(0) {
        // SAFETY: both values are live.
        unsafe { mlir_sys::mlirValueReplaceAllUsesOfWith(result.to_raw(), by.to_raw()) };
    }
    erase(operation);
}

/// Removes an operation whose results nothing uses, and which the caller does not use any more.
pub fn erase(operation: OperationRef) {
    // SAFETY: the operation is live, by the invariant of all handles.
    unsafe { mlir_sys::mlirOperationDestroy(operation.to_raw()) }
}

/// Sets an attribute of an operation.
pub fn set_attribute<'c>(operation: OperationRef<'c, '_>, name: &str, attribute: Attribute<'c>) {
    let name = StringRef::new(name);
    // SAFETY: operation, name and attribute are live.
    unsafe {
        mlir_sys::mlirOperationSetAttributeByName(operation.to_raw(), name.to_raw(), attribute.to_raw());
    }
}

/// Lends context and module to a build under one lifetime. The build keeps no handle after it returns.
pub fn build<R>(
    context: &Context,
    module: &Module,
    run: impl for<'c> FnOnce(&'c Context, &'c Module<'c>) -> R,
) -> R {
    // SAFETY: `run` is generic over the lifetime, so that no handle of it can leave in `R`; both references are
    // valid for the duration of the call. The cast only shortens the module's context lifetime to the borrow.
    let module: &Module = unsafe { &*std::ptr::from_ref(module).cast() };
    run(context, module)
}

/// MLIR's translation of a module (or `gpu.module`) in the LLVM dialect to LLVM IR.
///
/// # Safety
///
/// `context` is a live LLVM context of the LLVM library that MLIR is linked with.
pub unsafe fn translate(operation: OperationRef, context: *mut c_void) -> Option<NonNull<c_void>> {
    let operation = operation.to_raw();
    // SAFETY: the operation is live, and the caller vouches for the context.
    NonNull::new(unsafe { mlir_sys::mlirTranslateModuleToLLVMIR(operation, context.cast()) }.cast())
}
