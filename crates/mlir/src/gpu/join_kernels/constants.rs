//! The integer constants of a kernel, which may come with a launch.

use std::collections::HashSet;

use melior::Context;
use melior::ir::attribute::IntegerAttribute;
use melior::ir::block::BlockLike;
use melior::ir::operation::{OperationLike, OperationRef};
use melior::ir::r#type::IntegerType;
use melior::ir::{AttributeLike, BlockRef, Region};

use crate::handle;

/// Turns of a loop at most that LLVM may unroll.
const FEW_TURNS: i32 = 32;

/// An `arith.constant` of type i32, for as long as its kernel's region is there.
pub struct Constant<'c> {
    /// The operation.
    pub operation: OperationRef<'c, 'c>,
    /// Its value.
    pub value: i32,
    /// Whether it is the end of a long loop.
    pub ends: bool,
}

/// The constants of a kernel, in the order of its operations.
pub fn constants<'c>(context: &'c Context, region: &Region<'c>) -> Vec<Constant<'c>> {
    let (mut all, mut ends) = (Vec::new(), HashSet::new());
    for block in handle::blocks(region) {
        add_constants(context, block, &mut all, &mut ends);
    }
    for constant in &mut all {
        constant.ends = ends.contains(&handle::address(constant.operation));
    }
    all.retain(|constant| !constant.ends || constant.value > FEW_TURNS);
    all
}

/// Adds the constants of a block to `all`, and the addresses of those that its loops end at to `ends`.
fn add_constants<'c>(
    context: &'c Context,
    block: BlockRef<'c, 'c>,
    all: &mut Vec<Constant<'c>>,
    ends: &mut HashSet<usize>,
) {
    let mut next = block.first_operation();
    while let Some(operation) = next {
        next = operation.next_in_block();
        let operation = handle::operation(operation);
        all.extend(value(context, operation).map(|value| Constant {
            operation,
            value,
            ends: false,
        }));
        if operation.name().as_string_ref().as_str() == Ok("scf.for") {
            let end = operation.operand(1).ok().and_then(handle::defining);
            ends.extend(end.map(handle::address));
        }
        for region in operation.regions() {
            for block in handle::blocks(&*region) {
                add_constants(context, block, all, ends);
            }
        }
    }
}

/// The value of an operation that is a [`Constant`].
fn value(context: &Context, operation: OperationRef) -> Option<i32> {
    let is_constant = operation.name().as_string_ref().as_str() == Ok("arith.constant");
    let value = operation.attribute("value").ok().filter(|_| is_constant)?;
    let value = IntegerAttribute::try_from(value).ok()?;
    let is_word = value.r#type() == IntegerType::new(context, 32).into();
    i32::try_from(value.value()).ok().filter(|_| is_word)
}

impl<'c> Constant<'c> {
    /// Gives it another value.
    pub fn set(&self, context: &'c Context, value: i32) {
        let value = IntegerAttribute::new(IntegerType::new(context, 32).into(), i64::from(value));
        handle::set_attribute(self.operation, "value", value.into());
    }
}
