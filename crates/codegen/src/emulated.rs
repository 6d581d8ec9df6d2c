//! Kernels for the emulator: the same LLVM IR for x86-64, with NVVM's intrinsics as calls of the runtime, a check
//! before every access, and a table of entry points.

use std::collections::BTreeMap;

use inkwell::AddressSpace;
use inkwell::attributes::{Attribute, AttributeLoc};
use inkwell::builder::{Builder, BuilderError};
use inkwell::context::Context;
use inkwell::module::{Linkage, Module};
use inkwell::types::{BasicType, BasicTypeEnum};
use inkwell::values::{
    BasicMetadataValueEnum, BasicValue, BasicValueEnum, FunctionValue, InstructionOpcode, InstructionValue,
    PointerValue,
};
use syncbn_abi::gpu_symbols::{EMULATED_ACCESS, EMULATED_INTRINSIC, EMULATED_KERNELS, EMULATED_SHARED};

use crate::CodegenError;

/// LLVM's number of the calling convention of PTX kernels.
const PTX_KERNEL: u32 = 71;
const SHARED: u16 = 3;

/// Turns a module of kernels into one for the emulator. `names` are the kernels in the order of their indices.
pub fn retarget<'c>(context: &'c Context, module: &Module<'c>, names: &[&str]) -> Result<(), CodegenError> {
    let retargeting = Retargeting {
        context,
        module,
        builder: context.create_builder(),
    };
    retargeting.run(names)
}

impl From<BuilderError> for CodegenError {
    fn from(error: BuilderError) -> CodegenError {
        CodegenError::Llvm(format!("kernels for the emulator: {error}"))
    }
}

struct Retargeting<'m, 'c> {
    context: &'c Context,
    module: &'m Module<'c>,
    builder: Builder<'c>,
}

impl<'c> Retargeting<'_, 'c> {
    fn run(&self, names: &[&str]) -> Result<(), CodegenError> {
        let pointer = self.context.ptr_type(AddressSpace::default());
        self.replace_shared_memory();
        for function in self.module.get_functions().collect::<Vec<_>>() {
            let name = function.get_name().to_string_lossy().into_owned();
            match name.strip_prefix("llvm.nvvm.") {
                Some(intrinsic) => self.replace_intrinsic(function, intrinsic)?,
                None => self.check_accesses(function)?,
            }
        }
        let mut entries = BTreeMap::new();
        for name in names {
            if !entries.contains_key(name) {
                let missing = || CodegenError::Llvm(format!("kernel {name} is missing"));
                let kernel = self.module.get_function(name).ok_or_else(missing)?;
                let entry = self.entry(kernel, name)?.as_global_value().as_pointer_value();
                entries.insert(name, entry);
            }
        }
        let table: Vec<PointerValue> = names.iter().map(|name| entries[name]).collect();
        let table = pointer.const_array(&table);
        let global = self.module.add_global(table.get_type(), None, EMULATED_KERNELS);
        global.set_initializer(&table);
        global.set_constant(true);
        Ok(())
    }

    /// Shared memory is the runtime's.
    fn replace_shared_memory(&self) {
        let shared: Vec<_> = self
            .module
            .get_globals()
            .filter(|g| g.as_pointer_value().get_type().get_address_space() == AddressSpace::from(SHARED))
            .collect();
        for global in shared {
            let bytes = self.context.i8_type();
            let own = self.module.get_global(EMULATED_SHARED).unwrap_or_else(|| {
                let space = Some(AddressSpace::from(SHARED));
                self.module.add_global(bytes, space, EMULATED_SHARED)
            });
            global
                .as_pointer_value()
                .replace_all_uses_with(own.as_pointer_value());
            // SAFETY: nothing refers to the global any more.
            unsafe { global.delete() };
        }
    }

    /// A call of the runtime before every load and store of global and shared memory.
    fn check_accesses(&self, function: FunctionValue<'c>) -> Result<(), CodegenError> {
        let i64_type = self.context.i64_type();
        let pointer = self.context.ptr_type(AddressSpace::default());
        let parameters = [pointer.into(), i64_type.into(), i64_type.into(), i64_type.into()];
        let check = self.module.get_function(EMULATED_ACCESS).unwrap_or_else(|| {
            let ty = self.context.void_type().fn_type(&parameters, false);
            self.module.add_function(EMULATED_ACCESS, ty, None)
        });
        for instruction in function
            .get_basic_blocks()
            .iter()
            .flat_map(|b| b.get_instructions())
        {
            let Some((address, size, written)) = access(instruction) else {
                continue;
            };
            if address.get_type().get_address_space() == AddressSpace::default() {
                continue;
            }
            self.builder.position_before(&instruction);
            let plain = self.builder.build_address_space_cast(address, pointer, "")?;
            let alignment = u64::from(instruction.get_alignment().unwrap_or(1));
            let arguments: [BasicMetadataValueEnum; 4] = [
                plain.into(),
                size.into(),
                i64_type.const_int(alignment, false).into(),
                i64_type.const_int(u64::from(written), false).into(),
            ];
            self.builder.build_call(check, &arguments, "")?;
        }
        Ok(())
    }

    /// An intrinsic becomes a function that calls the runtime's one: special registers by value, all others with
    /// the addresses of their arguments and of their result.
    fn replace_intrinsic(&self, function: FunctionValue<'c>, name: &str) -> Result<(), CodegenError> {
        let symbol: String = name
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
            .collect();
        let symbol = format!("{EMULATED_INTRINSIC}{symbol}");
        let ty = function.get_type();
        if name.starts_with("read.ptx.sreg.") {
            let direct = self.module.add_function(&symbol, ty, None);
            function.replace_all_uses_with(direct);
        } else {
            let pointer = self.context.ptr_type(AddressSpace::default());
            let by_address = self
                .context
                .void_type()
                .fn_type(&[pointer.into(), pointer.into()], false);
            let provided = self.module.add_function(&symbol, by_address, None);
            let own = self
                .module
                .add_function(&format!("emulate.{symbol}"), ty, Some(Linkage::Internal));
            for f in [provided, own] {
                self.mark_convergent(f);
            }
            self.builder
                .position_at_end(self.context.append_basic_block(own, ""));
            let types: Vec<_> = own.get_param_iter().map(|p| p.get_type()).collect();
            let structure = self.context.struct_type(&types, false);
            let arguments = self.builder.build_alloca(structure, "")?;
            for (i, value) in own.get_param_iter().enumerate() {
                let slot = self
                    .builder
                    .build_struct_gep(structure, arguments, i as u32, "")?;
                self.builder.build_store(slot, value)?;
            }
            match ty.get_return_type() {
                Some(result_type) => {
                    let result = self.builder.build_alloca(result_type, "")?;
                    self.builder
                        .build_call(provided, &[arguments.into(), result.into()], "")?;
                    let value = self.builder.build_load(result_type, result, "")?;
                    self.builder.build_return(Some(&value))?;
                }
                None => {
                    let none = pointer.const_null();
                    self.builder
                        .build_call(provided, &[arguments.into(), none.into()], "")?;
                    self.builder.build_return(None)?;
                }
            }
            function.replace_all_uses_with(own);
        }
        // SAFETY: nothing refers to the intrinsic any more.
        unsafe { function.delete() };
        Ok(())
    }

    /// Threads meet in these calls: LLVM must not duplicate them or move them into branches.
    fn mark_convergent(&self, function: FunctionValue<'c>) {
        let kind = Attribute::get_named_enum_kind_id("convergent");
        let attribute = self.context.create_enum_attribute(kind, 0);
        function.add_attribute(AttributeLoc::Function, attribute);
    }

    /// `void (void* const* parameters)`, which loads the parameters and calls the kernel. What a kernel takes by value
    /// it gets by address here.
    fn entry(&self, kernel: FunctionValue<'c>, name: &str) -> Result<FunctionValue<'c>, CodegenError> {
        if kernel.get_call_conventions() == PTX_KERNEL {
            kernel.set_call_conventions(0);
        }
        kernel.set_linkage(Linkage::Internal);
        let pointer = self.context.ptr_type(AddressSpace::default());
        let ty = self.context.void_type().fn_type(&[pointer.into()], false);
        let entry = self
            .module
            .add_function(&format!("enter.{name}"), ty, Some(Linkage::Internal));
        self.builder
            .position_at_end(self.context.append_basic_block(entry, ""));
        let Some(BasicValueEnum::PointerValue(table)) = entry.get_nth_param(0) else {
            return Err(CodegenError::Llvm("an entry has no parameter".to_string()));
        };
        // Every thread reads the same copy of what is passed by value.
        let by_value = Attribute::get_named_enum_kind_id("byval");
        let mut arguments: Vec<BasicMetadataValueEnum> = Vec::new();
        for (i, parameter) in kernel.get_param_iter().enumerate() {
            let offset = self.context.i64_type().const_int(8 * i as u64, false);
            let bytes = self.context.i8_type();
            // SAFETY: the runtime passes one pointer for each parameter.
            let slot = unsafe { self.builder.build_in_bounds_gep(bytes, table, &[offset], "")? };
            let place = self.builder.build_load(pointer, slot, "")?.into_pointer_value();
            // All other pointers are to global memory.
            if parameter.get_type() == pointer.into() {
                kernel.remove_enum_attribute(AttributeLoc::Param(i as u32), by_value);
                arguments.push(place.into());
                continue;
            }
            arguments.push(self.builder.build_load(parameter.get_type(), place, "")?.into());
        }
        self.builder.build_call(kernel, &arguments, "")?;
        self.builder.build_return(None)?;
        Ok(entry)
    }
}

/// Address and size of what an instruction accesses, and whether it writes.
fn access<'c>(
    instruction: InstructionValue<'c>,
) -> Option<(PointerValue<'c>, inkwell::values::IntValue<'c>, bool)> {
    let operand = |i| instruction.get_operand(i).and_then(|o| o.value());
    match instruction.get_opcode() {
        InstructionOpcode::Load => {
            let loaded = BasicTypeEnum::try_from(instruction.get_type()).ok()?;
            let size = loaded.size_of()?;
            Some((operand(0)?.into_pointer_value(), size, false))
        }
        InstructionOpcode::Store => {
            let stored = operand(0)?;
            let size = stored.as_basic_value_enum().get_type().size_of()?;
            Some((operand(1)?.into_pointer_value(), size, true))
        }
        _ => None,
    }
}
