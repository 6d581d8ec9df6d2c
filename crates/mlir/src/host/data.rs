//! Data of a module: a graph's constants, the numbers of launches, shared memory.

use melior::ir::attribute::StringAttribute;
use melior::ir::block::BlockLike;
use melior::ir::operation::OperationBuilder;
use melior::ir::{Attribute, Identifier, Region};

use super::Functions;
use crate::emit::SHARED_MEMORY;

impl<'c> Functions<'c> {
    /// Declares the data that holds a graph's constants.
    pub fn declare_constants(&self, name: &str) {
        let constant = ("constant", Attribute::unit(self.context));
        self.global(name, "i8", "external", &[constant]);
    }

    /// Defines constant numbers of host code.
    pub fn define_numbers(&self, name: &str, numbers: &[i32]) {
        let values: Vec<String> = numbers.iter().map(i32::to_string).collect();
        let count = numbers.len();
        let value = format!("dense<[{}]> : tensor<{count}xi32>", values.join(", "));
        let attributes = [
            ("constant", Attribute::unit(self.context)),
            ("value", self.attribute(&value)),
        ];
        self.global(
            name,
            &format!("!llvm.array<{count} x i32>"),
            "internal",
            &attributes,
        );
    }

    /// Declares a block's dynamic shared memory, whose size a launch gives.
    pub fn declare_shared_memory(&self) {
        let attributes = [
            ("addr_space", self.attribute("3 : i32")),
            ("alignment", self.attribute("128 : i64")),
        ];
        self.global(SHARED_MEMORY, "!llvm.array<0 x i8>", "external", &attributes);
    }

    /// Appends data of a type, with attributes beside its name, type and linkage.
    fn global(&self, name: &str, ty: &str, linkage: &str, attributes: &[(&str, Attribute<'c>)]) {
        let own = [
            ("sym_name", StringAttribute::new(self.context, name).into()),
            ("global_type", self.attribute(ty)),
            ("linkage", self.attribute(&format!("#llvm.linkage<{linkage}>"))),
        ];
        let all = own.iter().chain(attributes);
        let all: Vec<(Identifier<'c>, Attribute<'c>)> = all
            .map(|&(name, attribute)| (Identifier::new(self.context, name), attribute))
            .collect();
        let operation = OperationBuilder::new("llvm.mlir.global", self.unknown())
            .add_attributes(&all)
            .add_regions([Region::new()])
            .build();
        let Ok(operation) = operation else {
            unreachable!("llvm.mlir.global is built with all its attributes");
        };
        self.block.append_operation(operation);
    }
}
