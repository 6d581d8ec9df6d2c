//! Functions of the module: declarations, parameters, bodies.

use melior::Context;
use melior::ir::attribute::{ArrayAttribute, StringAttribute, TypeAttribute};
use melior::ir::block::BlockLike;
use melior::ir::operation::OperationBuilder;
use melior::ir::{Attribute, Block, BlockRef, Identifier, Location, Module, Region, RegionLike, Type};

use crate::emit::{Elem, Val};
use crate::handle;

/// A parameter of a generated function.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Parameter {
    /// A pointer that nothing else in the call overlaps.
    Exclusive,
    /// A pointer that may equal another one.
    Shared,
    /// An i64.
    Size,
}

/// Makes functions in a module, or in a `gpu.module` of it.
#[derive(Clone, Copy)]
pub struct Functions<'c> {
    /// The MLIR context.
    pub context: &'c Context,
    /// Where functions go.
    block: BlockRef<'c, 'c>,
}

impl<'c> Functions<'c> {
    /// Functions of a module.
    pub fn new(context: &'c Context, module: &'c Module<'c>) -> Functions<'c> {
        Functions {
            context,
            block: handle::block(&*module.body()),
        }
    }

    pub fn unknown(&self) -> Location<'c> {
        Location::unknown(self.context)
    }

    pub fn location(&self, name: &str) -> Location<'c> {
        Location::name(self.context, name, self.unknown())
    }

    pub fn llvm_type(&self, elem: Option<Elem>) -> Type<'c> {
        use melior::dialect::llvm::r#type as llvm;
        use melior::ir::r#type::IntegerType;
        match elem {
            None => llvm::void(self.context),
            Some(Elem::Ptr) => llvm::pointer(self.context, 0),
            Some(Elem::I32) => IntegerType::new(self.context, 32).into(),
            Some(Elem::F64) => Type::float64(self.context),
            Some(_) => IntegerType::new(self.context, 64).into(),
        }
    }

    pub fn attribute(&self, text: &str) -> Attribute<'c> {
        match Attribute::parse(self.context, text) {
            Some(attribute) => attribute,
            None => unreachable!("attribute {text} is valid MLIR"),
        }
    }

    /// Appends an `llvm.func`; with no body it is a declaration.
    pub fn define(
        &self,
        name: &str,
        parameters: &[Parameter],
        result: Option<Elem>,
        public: bool,
        region: Region<'c>,
        location: Location<'c>,
    ) {
        let types: Vec<Type<'c>> = parameters
            .iter()
            .map(|p| {
                self.llvm_type(Some(if *p == Parameter::Size {
                    Elem::I64
                } else {
                    Elem::Ptr
                }))
            })
            .collect();
        let ty = melior::dialect::llvm::r#type::function(self.llvm_type(result), &types, false);
        let arguments: Vec<Attribute<'c>> = parameters
            .iter()
            .map(|p| match p {
                Parameter::Exclusive => self.attribute("{llvm.noalias, llvm.nonnull, llvm.noundef}"),
                Parameter::Shared => self.attribute("{llvm.nonnull, llvm.noundef}"),
                Parameter::Size => self.attribute("{llvm.noundef}"),
            })
            .collect();
        let linkage = if public {
            "#llvm.linkage<external>"
        } else {
            "#llvm.linkage<internal>"
        };
        let name_of = |n| Identifier::new(self.context, n);
        let operation = OperationBuilder::new("llvm.func", location)
            .add_attributes(&[
                (
                    name_of("sym_name"),
                    StringAttribute::new(self.context, name).into(),
                ),
                (name_of("function_type"), TypeAttribute::new(ty).into()),
                (name_of("linkage"), self.attribute(linkage)),
                (name_of("CConv"), self.attribute("#llvm.cconv<ccc>")),
                (
                    name_of("arg_attrs"),
                    ArrayAttribute::new(self.context, &arguments).into(),
                ),
            ])
            .add_regions([region])
            .build();
        let Ok(operation) = operation else {
            unreachable!("llvm.func is built with all its attributes");
        };
        self.block.append_operation(operation);
    }

    /// Declares the data that holds a graph's constants.
    pub fn declare_constants(&self, name: &str) {
        let named = |n| Identifier::new(self.context, n);
        let byte = melior::ir::r#type::IntegerType::new(self.context, 8).into();
        let operation = OperationBuilder::new("llvm.mlir.global", self.unknown())
            .add_attributes(&[
                (named("sym_name"), StringAttribute::new(self.context, name).into()),
                (named("global_type"), TypeAttribute::new(byte).into()),
                (named("linkage"), self.attribute("#llvm.linkage<external>")),
                (named("constant"), Attribute::unit(self.context)),
            ])
            .add_regions([Region::new()])
            .build();
        if let Ok(operation) = operation {
            self.block.append_operation(operation);
        }
    }

    /// Declares a function that the runtime provides.
    pub fn declare(&self, name: &str, parameters: &[Parameter], result: Option<Elem>) {
        self.define(name, parameters, result, true, Region::new(), self.unknown());
    }

    /// A new function body with these parameters: its region, entry block and arguments.
    pub fn body(
        &self,
        parameters: &[Parameter],
        location: Location<'c>,
    ) -> (Region<'c>, BlockRef<'c, 'c>, Vec<Val<'c>>) {
        let elems: Vec<Elem> = parameters
            .iter()
            .map(|p| {
                if *p == Parameter::Size {
                    Elem::I64
                } else {
                    Elem::Ptr
                }
            })
            .collect();
        let types: Vec<(Type<'c>, Location<'c>)> = elems
            .iter()
            .map(|&elem| (self.llvm_type(Some(elem)), location))
            .collect();
        let region = Region::new();
        let block = handle::block(&*region.append_block(Block::new(&types)));
        let arguments = elems
            .iter()
            .enumerate()
            .map(|(i, &elem)| match block.argument(i) {
                Ok(a) => Val {
                    value: handle::value(a),
                    elem,
                    lanes: 1,
                },
                Err(_) => unreachable!("the block was made with this argument"),
            })
            .collect();
        (region, block, arguments)
    }
}
