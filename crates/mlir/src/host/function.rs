//! Functions of the module: declarations, parameters, bodies.

use melior::Context;
use melior::ir::attribute::{ArrayAttribute, StringAttribute, TypeAttribute};
use melior::ir::block::BlockLike;
use melior::ir::operation::OperationBuilder;
use melior::ir::{Attribute, Block, BlockRef, Identifier, Location, Module, Region, RegionLike, Type};

use crate::emit::{Blocks, Elem, Val};
use crate::handle;

/// A parameter of a generated function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Parameter {
    /// A pointer that nothing else in the call overlaps.
    Exclusive,
    /// A pointer that may equal another one.
    Shared,
    /// An i64.
    Size,
    /// An i32.
    Index,
    /// So many i32, passed by value, in a kernel.
    Numbers(usize),
}

/// Makes functions in a module, or in a `gpu.module` of it.
#[derive(Clone, Copy)]
pub struct Functions<'c> {
    /// The MLIR context.
    pub context: &'c Context,
    /// Where functions go.
    pub(super) block: BlockRef<'c, 'c>,
    /// Of pointers: 0 in host code, 1 (global memory) in kernels.
    address_space: u32,
}

impl Parameter {
    fn elem(self) -> Elem {
        match self {
            Parameter::Exclusive | Parameter::Shared => Elem::Ptr,
            Parameter::Size => Elem::I64,
            Parameter::Index => Elem::I32,
            Parameter::Numbers(_) => Elem::ParameterPtr,
        }
    }
}

impl<'c> Functions<'c> {
    /// Functions of a module.
    pub fn new(context: &'c Context, module: &'c Module<'c>) -> Functions<'c> {
        Functions {
            context,
            block: handle::block(&*module.body()),
            address_space: 0,
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
            Some(Elem::Ptr) => llvm::pointer(self.context, self.address_space),
            Some(Elem::ParameterPtr) => llvm::pointer(self.context, 0),
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

    /// Appends a function; with no body it is a declaration.
    pub fn define(
        &self,
        name: &str,
        parameters: &[Parameter],
        result: Option<Elem>,
        public: bool,
        region: Region<'c>,
        location: Location<'c>,
    ) {
        let of_parameters: Vec<&str> = parameters
            .iter()
            .map(|p| match p {
                Parameter::Exclusive => "{llvm.noalias, llvm.nonnull, llvm.noundef}",
                Parameter::Shared => "{llvm.nonnull, llvm.noundef}",
                Parameter::Size | Parameter::Index | Parameter::Numbers(_) => "{llvm.noundef}",
            })
            .collect();
        let linkage = match public {
            true => "#llvm.linkage<external>",
            false => "#llvm.linkage<internal>",
        };
        let attributes = [("linkage", self.attribute(linkage))];
        self.append(
            name,
            (parameters, result),
            &of_parameters,
            &attributes,
            region,
            location,
        );
    }

    /// Appends a kernel. `readonly[i]` says that nothing is written through
    /// parameter `i`.
    pub fn define_kernel(
        &self,
        name: &str,
        parameters: &[Parameter],
        readonly: &[bool],
        blocks: Blocks,
        region: Region<'c>,
        location: Location<'c>,
    ) {
        let of_parameters: Vec<String> = parameters
            .iter()
            .enumerate()
            .map(|(i, p)| match p {
                Parameter::Exclusive if readonly[i] => {
                    "{llvm.noalias, llvm.readonly, llvm.align = 16 : i64}".to_string()
                }
                Parameter::Exclusive => "{llvm.noalias, llvm.align = 16 : i64}".to_string(),
                Parameter::Shared => "{llvm.align = 16 : i64}".to_string(),
                Parameter::Size | Parameter::Index => "{}".to_string(),
                Parameter::Numbers(count) => {
                    format!("{{llvm.byval = !llvm.array<{count} x i32>, llvm.align = 4 : i64}}")
                }
            })
            .collect();
        let of_parameters: Vec<&str> = of_parameters.iter().map(String::as_str).collect();
        let unit = Attribute::unit(self.context);
        // 3 leave 80 registers a thread. Left to itself ptxas takes 32, and spills where a kernel divides in f64.
        let resident = blocks.resident.unwrap_or(3);
        let attributes = [
            ("linkage", self.attribute("#llvm.linkage<external>")),
            ("gpu.kernel", unit),
            ("nvvm.kernel", unit),
            (
                "nvvm.maxntid",
                self.attribute(&format!("array<i32: {}, 1, 1>", blocks.threads)),
            ),
            ("nvvm.minctasm", self.attribute(&format!("{resident} : i32"))),
        ];
        self.append(
            name,
            (parameters, None),
            &of_parameters,
            &attributes,
            region,
            location,
        );
    }

    fn append(
        &self,
        name: &str,
        (parameters, result): (&[Parameter], Option<Elem>),
        of_parameters: &[&str],
        attributes: &[(&'static str, Attribute<'c>)],
        region: Region<'c>,
        location: Location<'c>,
    ) {
        let types: Vec<Type<'c>> = parameters
            .iter()
            .map(|p| self.llvm_type(Some(p.elem())))
            .collect();
        let ty = melior::dialect::llvm::r#type::function(self.llvm_type(result), &types, false);
        let of_parameters: Vec<Attribute<'c>> =
            of_parameters.iter().map(|text| self.attribute(text)).collect();
        let mut all = vec![
            ("sym_name", StringAttribute::new(self.context, name).into()),
            ("function_type", TypeAttribute::new(ty).into()),
            ("CConv", self.attribute("#llvm.cconv<ccc>")),
            (
                "arg_attrs",
                ArrayAttribute::new(self.context, &of_parameters).into(),
            ),
        ];
        all.extend_from_slice(attributes);
        let all: Vec<(Identifier<'c>, Attribute<'c>)> = all
            .into_iter()
            .map(|(name, attribute)| (Identifier::new(self.context, name), attribute))
            .collect();
        let operation = OperationBuilder::new("llvm.func", location)
            .add_attributes(&all)
            .add_regions([region])
            .build();
        let Ok(operation) = operation else {
            unreachable!("llvm.func is built with all its attributes");
        };
        self.block.append_operation(operation);
    }

    /// Marks a module as one that holds a `gpu.module`.
    pub fn mark_as_container(&self, module: &'c Module<'c>) {
        let unit = Attribute::unit(self.context);
        handle::set_attribute(module.as_operation(), "gpu.container_module", unit);
    }

    /// Appends an empty `gpu.module`, and makes functions in it.
    pub fn device_module(&self, name: &str) -> Functions<'c> {
        let region = Region::new();
        let block = handle::block(&*region.append_block(Block::new(&[])));
        let named = |n| Identifier::new(self.context, n);
        let operation = OperationBuilder::new("gpu.module", self.unknown())
            .add_attributes(&[(named("sym_name"), StringAttribute::new(self.context, name).into())])
            .add_regions([region])
            .build();
        let Ok(operation) = operation else {
            unreachable!("gpu.module is built with its name");
        };
        self.block.append_operation(operation);
        Functions {
            context: self.context,
            block,
            address_space: 1,
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
        let elems: Vec<Elem> = parameters.iter().map(|p| p.elem()).collect();
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
