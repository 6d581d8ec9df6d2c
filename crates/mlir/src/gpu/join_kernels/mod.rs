//! Kernels whose code differs only in integer constants are merged: what differs comes with a launch.
//!
//! Before:
//!
//! ```text
//! llvm.func @binary_1(...) { %0 = arith.constant 64 : i32   ... }
//! llvm.func @binary_2(...) { %0 = arith.constant 128 : i32  ... }
//! ```
//!
//! After, with the numbers `[64]` for one launch and `[128]` for the other:
//!
//! ```text
//! llvm.func @binary_1(..., %numbers: !llvm.ptr {llvm.byval = !llvm.array<1 x i32>}) { %0 = llvm.load %numbers  ... }
//! ```
//!
//! Sizes, strides and offsets of kernels are such constants. What else depends on a size, such as the lanes of a vector
//! or a loop that is not there for an axis of one element, makes other operations, so that the kernels stay apart. So do
//! kernels with loops of a few turns, which LLVM unrolls, where the turns differ. The end of a longer loop comes with
//! the launch even where it is the same for all: ptxas unrolls what it knows the turns of until registers spill. A division by a number of the launch
//! takes some 20 instructions where one by a constant takes 4; kernels divide once for each vector or row.

mod constants;

use std::collections::HashMap;

use melior::Context;
use melior::ir::block::BlockLike;
use melior::ir::operation::{OperationBuilder, OperationLike, OperationPrintingFlags};
use melior::ir::{Location, Region, RegionLike, Value};

use crate::emit::{Blocks, Elem, Emitter};
use crate::handle;
use crate::host::{Functions, Parameter};
use constants::{Constant, constants};

/// Bytes of a kernel's parameters at most; each takes 8 of them, a number 4.
const MOST_BYTES: usize = 4096;

/// A kernel that is not in the module yet.
pub struct Definition<'c> {
    /// Its symbol.
    pub name: String,
    /// Its operator, which messages and profiles know it by.
    pub op: &'static str,
    /// Its parameters.
    pub parameters: Vec<Parameter>,
    /// Whether nothing is written through each.
    pub readonly: Vec<bool>,
    /// Its blocks.
    pub blocks: Blocks,
    /// Where it comes from.
    pub location: Location<'c>,
    /// Its code.
    pub region: Region<'c>,
}

impl<'c> Definition<'c> {
    /// Adds it to a module.
    pub fn define(self, module: &Functions<'c>) {
        module.define_kernel(
            &self.name,
            &self.parameters,
            &self.readonly,
            self.blocks,
            self.region,
            self.location,
        );
    }

    /// Whether its plan decided already what is open.
    fn has_numbers(&self) -> bool {
        matches!(self.parameters.last(), Some(Parameter::Numbers(_)))
    }
}

/// A kernel, and the indices of the launches that it serves with their numbers.
pub struct Joined<'c> {
    pub definition: Definition<'c>,
    pub launches: Vec<(usize, Vec<i32>)>,
}

/// All that a kernel is besides the values of its constants: kernels that are equal in it become one.
#[derive(PartialEq, Eq, Hash)]
struct Skeleton {
    op: &'static str,
    parameters: Vec<Parameter>,
    readonly: Vec<bool>,
    blocks: Blocks,
    /// In MLIR's text form, with all constants 0.
    code: String,
}

/// A kernel that may become one with others.
struct Candidate<'c> {
    launch: usize,
    definition: Definition<'c>,
    /// What may come with a launch.
    constants: Vec<Constant<'c>>,
}

/// The kernels that serve launches of these, in the order of their first launches.
pub fn join<'c>(context: &'c Context, kernels: Vec<(usize, Definition<'c>)>) -> Vec<Joined<'c>> {
    let mut joined: Vec<Joined<'c>> = Vec::new();
    let mut groups: HashMap<Skeleton, Vec<Candidate<'c>>> = HashMap::new();
    for (launch, definition) in kernels {
        if definition.has_numbers() {
            joined.push(Joined {
                definition,
                launches: vec![(launch, Vec::new())],
            });
            continue;
        }
        let mut candidate = Candidate {
            launch,
            constants: constants(context, &definition.region),
            definition,
        };
        groups
            .entry(candidate.skeleton(context))
            .or_default()
            .push(candidate);
    }
    for group in groups.into_values() {
        joined.extend(join_group(context, group));
    }
    joined.sort_by_key(|kernel| kernel.launches.first().map(|(launch, _)| *launch));
    joined
}

impl<'c> Candidate<'c> {
    /// All that its code depends on besides the values of its constants.
    fn skeleton(&mut self, context: &'c Context) -> Skeleton {
        for constant in &self.constants {
            constant.set(context, 0);
        }
        let code = printed(&mut self.definition);
        for constant in &self.constants {
            constant.set(context, constant.value);
        }
        let Definition {
            op,
            ref parameters,
            ref readonly,
            blocks,
            ..
        } = self.definition;
        Skeleton {
            op,
            parameters: parameters.clone(),
            readonly: readonly.clone(),
            blocks: Blocks {
                // These are the launch's.
                takes: 0,
                columns: 0,
                planes: 0,
                ..blocks
            },
            code,
        }
    }

    /// The kernel with these constants, by their places, as numbers of a launch, each as one of `count`.
    fn open(self, context: &'c Context, open: &[(usize, usize)], count: usize) -> Definition<'c> {
        let mut definition = self.definition;
        let Some(values) = numbers(context, &definition.region, count) else {
            return definition;
        };
        for &(place, number) in open {
            handle::replace(self.constants[place].operation, values[number]);
        }
        definition.parameters.push(Parameter::Numbers(count));
        definition.readonly.push(true);
        definition
    }
}

/// Adds a parameter of `count` numbers to a kernel that is not empty: their values.
fn numbers<'c>(context: &'c Context, region: &Region<'c>, count: usize) -> Option<Vec<Value<'c, 'c>>> {
    let entry = handle::block(&*region.first_block()?);
    let first = handle::operation(entry.first_operation()?);
    let mut e = Emitter::before(context, entry, first);
    e.index_elem = Elem::I32;
    let values = e.by_value(count);
    Some(values.into_iter().map(|value| value.value).collect())
}

/// The code in MLIR's generic form, in which no name depends on a value.
fn printed(definition: &mut Definition) -> String {
    // Only operations can be printed, so one of no meaning has the code meanwhile.
    let region = std::mem::take(&mut definition.region);
    let holder = OperationBuilder::new("builtin.module", definition.location)
        .add_regions([region])
        .build();
    let Ok(holder) = holder else {
        unreachable!("builtin.module is built with its region");
    };
    let flags = OperationPrintingFlags::new().print_generic_operation_form();
    let Ok(text) = holder.to_string_with_flags(flags) else {
        unreachable!("MLIR prints UTF-8");
    };
    definition.region = handle::take_region(holder);
    text
}

/// One kernel for all launches of kernels that differ in values of constants only; each its own where these are too many.
fn join_group<'c>(context: &'c Context, group: Vec<Candidate<'c>>) -> Vec<Joined<'c>> {
    let mut numbers: Vec<Vec<i32>> = Vec::new();
    let mut known: HashMap<Vec<i32>, usize> = HashMap::new();
    let mut open = Vec::new();
    for place in 0..group.first().map_or(0, |first| first.constants.len()) {
        let values: Vec<i32> = group.iter().map(|c| c.constants[place].value).collect();
        let ends = group.iter().any(|c| c.constants[place].ends);
        if !ends && values.iter().all(|&value| value == values[0]) {
            continue;
        }
        let number = *known.entry(values).or_insert_with_key(|values| {
            numbers.push(values.clone());
            numbers.len() - 1
        });
        open.push((place, number));
    }
    let parameters = group.first().map_or(0, |first| first.definition.parameters.len());
    if 8 * parameters + 4 * numbers.len() > MOST_BYTES {
        let alone = group.into_iter().map(|candidate| Joined {
            definition: candidate.definition,
            launches: vec![(candidate.launch, Vec::new())],
        });
        return alone.collect();
    }
    let own = |i: usize| numbers.iter().map(|values| values[i]).collect();
    let launches = group.iter().enumerate().map(|(i, c)| (c.launch, own(i)));
    let launches = launches.collect();
    let Some(first) = group.into_iter().next() else {
        return Vec::new();
    };
    let definition = match numbers.len() {
        0 => first.definition,
        count => first.open(context, &open, count),
    };
    vec![Joined { definition, launches }]
}

#[cfg(test)]
mod tests;
