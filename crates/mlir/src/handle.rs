//! Lifetimes of MLIR handles. melior ties a value to the borrow of the block that holds it; the emitter keeps
//! values while it moves blocks into regions and regions into operations, which never moves what a handle
//! points to. The two functions here widen those borrows to the context's lifetime.
//!
//! The invariant that makes them sound: the module under construction outlives its emitter, and nothing
//! erases an operation or a block while an emitter exists.

use std::ffi::c_void;
use std::ptr::NonNull;

use melior::Context;
use melior::StringRef;
use melior::ir::block::BlockLike;
use melior::ir::operation::{OperationRef, OperationResult};
use melior::ir::{Attribute, AttributeLike, BlockRef, Module, Value, ValueLike};

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

/// The operation that a value is a result of.
pub fn defining<'c>(value: Value<'c, '_>) -> Option<OperationRef<'c, 'c>> {
    let result = OperationResult::try_from(value).ok()?;
    // SAFETY: as above.
    Some(unsafe { OperationRef::from_raw(result.owner().to_raw()) })
}

/// Removes an operation whose results nothing uses.
pub fn erase(operation: OperationRef) {
    // SAFETY: the operation is live, and the caller drops the reference.
    unsafe { mlir_sys::mlirOperationDestroy(operation.to_raw()) }
}

/// Sets a discardable attribute of a module.
pub fn set_attribute<'c>(module: &Module<'c>, name: &str, attribute: Attribute<'c>) {
    let name = StringRef::new(name);
    // SAFETY: module, name and attribute are live.
    unsafe {
        let operation = mlir_sys::mlirModuleGetOperation(module.to_raw());
        mlir_sys::mlirOperationSetAttributeByName(operation, name.to_raw(), attribute.to_raw());
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
