//! The builder that kernels are written with: typed scalars and vectors, arithmetic, loops, memory.
//!
//! Kernels read like their formula: `let y = e.fma(x, scale, bias)`. A [`Val`] knows whether it is a scalar
//! or a vector; operators splat a scalar operand when the other one is a vector.

mod arith;
mod attributes;
mod control;
mod cost;
mod device;
mod elem;
mod erf;
mod field;
mod grid;
mod index;
mod integer;
mod key;
mod lanes;
mod math;
mod memory;
mod merge;
mod numbers;
mod pointer;
mod sums;
mod team;
mod threads;
mod warp;

pub use arith::Compare;
pub use control::{Accumulate, Extent};
pub use cost::{Cost, Direction, Share, Tiles, UNROLLED};
pub use device::{Device, Footprint};
pub use elem::Elem;
pub(crate) use field::fields;
pub use grid::{Blocks, THREADS, Work, ceil};
pub use index::Index;
pub use key::Key;
pub use lanes::{Each, in_place};
pub use memory::Buffer;
pub use numbers::{Divisor, Number, Numbers};
pub use pointer::{AHEAD, LINE, Pointer};
pub use sums::{Finish, Inner};
pub use team::Team;
pub use warp::{COPY_BYTES, SHARED_MEMORY};

use std::cell::{Cell, Ref, RefCell, RefMut};
use std::collections::HashMap;

use melior::Context;
use melior::ir::block::BlockLike;
use melior::ir::operation::{OperationBuilder, OperationLike, OperationRef};
use melior::ir::r#type::IntegerType;
use melior::ir::{Attribute, Block, BlockRef, Identifier, Location, Region, Type, Value};

use crate::handle;

/// A scalar (one lane) or vector in the function being built.
#[derive(Debug, Clone, Copy)]
pub struct Val<'c> {
    /// The MLIR value.
    pub value: Value<'c, 'c>,
    /// Its element type.
    pub elem: Elem,
    /// Number of lanes; 1 is a scalar.
    pub lanes: usize,
}

/// Builds operations into the current block. Its methods take `&self`, as MLIR's own builders do, so that calls nest
/// like the formula that they write; what changes while it builds stands in cells.
pub struct Emitter<'c> {
    /// The MLIR context.
    pub context: &'c Context,
    /// Location of new operations.
    location: Cell<Location<'c>>,
    /// Where new operations go.
    block: Cell<BlockRef<'c, 'c>>,
    /// The first block of the function.
    entry: BlockRef<'c, 'c>,
    /// In front of what in that block; None is its end.
    before: Cell<Option<OperationRef<'c, 'c>>>,
    /// Lanes of the vectors that schedules use now; 1 in scalar tails.
    lanes: Cell<usize>,
    /// Type of indices: i64 on the CPU, i32 on a GPU.
    pub index_elem: Elem,
    /// The threads that run a function of the CPU together.
    team: Cell<Option<Team<'c>>>,
    /// Present in a GPU's kernel.
    device: Option<RefCell<Device<'c>>>,
    types: RefCell<HashMap<(Elem, usize), Type<'c>>>,
    constants: RefCell<Option<Constants<'c>>>,
}

/// Integer constants that stand once in a function, in front of everything in its first block.
struct Constants<'c> {
    block: BlockRef<'c, 'c>,
    first: Option<OperationRef<'c, 'c>>,
    known: HashMap<(Elem, i64), Val<'c>>,
}

impl<'c> Emitter<'c> {
    /// An emitter into `block`.
    pub fn new(context: &'c Context, location: Location<'c>, block: BlockRef<'c, 'c>) -> Emitter<'c> {
        Emitter {
            context,
            location: Cell::new(location),
            block: Cell::new(block),
            entry: block,
            before: Cell::new(None),
            lanes: Cell::new(1),
            index_elem: Elem::I64,
            team: Cell::new(None),
            device: None,
            types: RefCell::default(),
            constants: RefCell::default(),
        }
    }

    /// An emitter of a GPU's kernel.
    pub fn of_device(
        context: &'c Context,
        location: Location<'c>,
        block: BlockRef<'c, 'c>,
        device: Device<'c>,
    ) -> Emitter<'c> {
        Emitter {
            index_elem: Elem::I32,
            device: Some(RefCell::new(device)),
            ..Emitter::new(context, location, block)
        }
    }

    /// Whether this is a GPU's kernel, which is the emitter's own matter.
    fn is_device(&self) -> bool {
        self.device.is_some()
    }

    /// The state of a GPU's kernel.
    fn device(&self) -> Option<Ref<'_, Device<'c>>> {
        self.device.as_ref().map(RefCell::borrow)
    }

    /// The state of a GPU's kernel, to be changed.
    fn device_mut(&self) -> Option<RefMut<'_, Device<'c>>> {
        self.device.as_ref().map(RefCell::borrow_mut)
    }

    /// The state of a GPU's kernel, once it is built.
    pub fn into_device(self) -> Option<Device<'c>> {
        self.device.map(RefCell::into_inner)
    }

    /// Lanes of the vectors that schedules use now; 1 in scalar tails.
    pub fn lanes(&self) -> usize {
        self.lanes.get()
    }

    /// Location of new operations from now on.
    pub fn set_location(&self, location: Location<'c>) {
        self.location.set(location);
    }

    /// Location of new operations.
    pub fn location(&self) -> Location<'c> {
        self.location.get()
    }

    /// From now on every integer constant stands once in the function, whose first block this must be, in front of what
    /// comes next.
    pub fn share_constants(&self) {
        let zero = self.index(0);
        let constants = Constants {
            block: self.block.get(),
            first: handle::defining(zero.value),
            known: HashMap::from([((self.index_elem, 0), zero)]),
        };
        self.constants.replace(Some(constants));
    }

    /// An emitter that inserts in front of an operation of `block`.
    pub fn before(context: &'c Context, block: BlockRef<'c, 'c>, next: OperationRef<'c, 'c>) -> Emitter<'c> {
        Emitter {
            before: Cell::new(Some(next)),
            ..Emitter::new(context, Location::unknown(context), block)
        }
    }

    /// A further parameter of the function whose first block is being built.
    fn add_parameter(&self, elem: Elem) -> Val<'c> {
        let ty = self.ty(elem, 1);
        Val {
            value: handle::value(self.block.get().add_argument(ty, self.location.get())),
            elem,
            lanes: 1,
        }
    }

    /// The MLIR type of `lanes` elements.
    pub fn ty(&self, elem: Elem, lanes: usize) -> Type<'c> {
        let context = self.context;
        let global = u32::from(self.is_device());
        *self.types.borrow_mut().entry((elem, lanes)).or_insert_with(|| {
            let scalar = match elem {
                Elem::I1 => IntegerType::new(context, 1).into(),
                Elem::I8 => IntegerType::new(context, 8).into(),
                Elem::I32 => IntegerType::new(context, 32).into(),
                Elem::I64 => IntegerType::new(context, 64).into(),
                Elem::F32 => Type::float32(context),
                Elem::F64 => Type::float64(context),
                Elem::BF16 => Type::bfloat16(context),
                Elem::Ptr => melior::dialect::llvm::r#type::pointer(context, global),
                Elem::SharedPtr => melior::dialect::llvm::r#type::pointer(context, 3),
                Elem::ParameterPtr => melior::dialect::llvm::r#type::pointer(context, 0),
                Elem::Communicator => match Type::parse(context, "!nccl.comm") {
                    Some(ty) => ty,
                    None => unreachable!("the nccl dialect is registered before it is used"),
                },
            };
            if lanes == 1 {
                scalar
            } else {
                Type::vector(&[lanes as u64], scalar)
            }
        })
    }

    /// Appends an operation with explicit result types; returns its results.
    pub fn op(
        &self,
        name: &str,
        operands: &[Val<'c>],
        results: &[(Elem, usize)],
        attributes: &[(&str, Attribute<'c>)],
    ) -> Vec<Val<'c>> {
        self.op_with(name, operands, results, attributes, Vec::new(), &[])
    }

    /// [`Emitter::op`] for operations with one result.
    pub fn op1(
        &self,
        name: &str,
        operands: &[Val<'c>],
        result: (Elem, usize),
        attributes: &[(&str, Attribute<'c>)],
    ) -> Val<'c> {
        self.op(name, operands, &[result], attributes)[0]
    }

    fn op_with(
        &self,
        name: &str,
        operands: &[Val<'c>],
        results: &[(Elem, usize)],
        attributes: &[(&str, Attribute<'c>)],
        regions: Vec<Region<'c>>,
        successors: &[BlockRef<'c, 'c>],
    ) -> Vec<Val<'c>> {
        let types: Vec<Type<'c>> = results
            .iter()
            .map(|&(elem, lanes)| self.ty(elem, lanes))
            .collect();
        let operation = self.append(name, operands, &types, attributes, regions, successors);
        results
            .iter()
            .zip(operation.results())
            .map(|(&(elem, lanes), result)| Val {
                value: handle::result(result),
                elem,
                lanes,
            })
            .collect()
    }

    fn append(
        &self,
        name: &str,
        operands: &[Val<'c>],
        types: &[Type<'c>],
        attributes: &[(&str, Attribute<'c>)],
        regions: Vec<Region<'c>>,
        successors: &[BlockRef<'c, 'c>],
    ) -> OperationRef<'c, 'c> {
        let values: Vec<Value<'c, 'c>> = operands.iter().map(|v| v.value).collect();
        let attributes: Vec<(Identifier<'c>, Attribute<'c>)> = attributes
            .iter()
            .map(|&(n, a)| (Identifier::new(self.context, n), a))
            .collect();
        let successors: Vec<&Block<'c>> = successors.iter().map(|b| &**b).collect();
        let built = OperationBuilder::new(name, self.location.get())
            .add_operands(&values)
            .add_results(types)
            .add_attributes(&attributes)
            .add_regions_vec(regions)
            .add_successors(&successors)
            .build();
        let Ok(operation) = built else {
            unreachable!("{name} was built with explicit result types");
        };
        handle::operation(match self.before.get() {
            Some(next) => self.block.get().insert_operation_before(next, operation),
            None => self.block.get().append_operation(operation),
        })
    }
}
