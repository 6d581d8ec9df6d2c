//! Kernels for the emulator: the same LLVM IR for x86-64, with NVVM's intrinsics as calls of the runtime, a check
//! before every access, and a table of entry points. Checks and intrinsics are told which of the kernel's parameters
//! a global address is based on.

mod intrinsics;
mod provenance;

use std::collections::BTreeMap;

use inkwell::AddressSpace;
use inkwell::attributes::{Attribute, AttributeLoc};
use inkwell::builder::{Builder, BuilderError};
use inkwell::context::Context;
use inkwell::module::{Linkage, Module};
use inkwell::types::{BasicMetadataTypeEnum, BasicType, BasicTypeEnum};
use inkwell::values::{
    BasicMetadataValueEnum, BasicValue, BasicValueEnum, FunctionValue, InstructionOpcode, InstructionValue,
    PointerValue,
};
use syncbn_abi::BASE_UNKNOWN;
use syncbn_abi::gpu_symbols::{
    EMULATED_ACCESS, EMULATED_KERNELS, EMULATED_SHARED, EMULATOR, RUNTIME_EMULATOR,
};

use self::provenance::SHARED;
use crate::CodegenError;

/// LLVM's number of the calling convention of PTX kernels.
const PTX_KERNEL: u32 = 71;

/// Turns a module of kernels into one for the emulator. `names` are the kernels in the order of their indices.
pub fn retarget<'c>(context: &'c Context, module: &Module<'c>, names: &[&str]) -> Result<(), CodegenError> {
    let retargeting = Retargeting {
        context,
        module,
        builder: context.create_builder(),
        names,
    };
    retargeting.run()
}

impl From<BuilderError> for CodegenError {
    fn from(error: BuilderError) -> CodegenError {
        CodegenError::Llvm(format!("kernels for the emulator: {error}"))
    }
}

/// Defines `symbol` in a module as a pointer to what another object calls `target`, which the link so takes in.
pub fn refer_to<'c>(context: &'c Context, module: &Module<'c>, symbol: &str, target: &str) {
    let target = module.add_global(context.i8_type(), None, target);
    let pointer = target.as_pointer_value();
    let global = module.add_global(pointer.get_type(), None, symbol);
    global.set_initializer(&pointer);
    global.set_constant(true);
}

struct Retargeting<'m, 'c> {
    context: &'c Context,
    module: &'m Module<'c>,
    builder: Builder<'c>,
    /// The kernels.
    names: &'m [&'m str],
}

impl<'c> Retargeting<'_, 'c> {
    fn run(&self) -> Result<(), CodegenError> {
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
        for name in self.names {
            if !entries.contains_key(name) {
                let missing = || CodegenError::Llvm(format!("kernel {name} is missing"));
                let kernel = self.module.get_function(name).ok_or_else(missing)?;
                let entry = self.entry(kernel, name)?.as_global_value().as_pointer_value();
                entries.insert(name, entry);
            }
        }
        let table: Vec<PointerValue> = self.names.iter().map(|name| entries[name]).collect();
        let table = pointer.const_array(&table);
        let global = self.module.add_global(table.get_type(), None, EMULATED_KERNELS);
        global.set_initializer(&table);
        global.set_constant(true);
        refer_to(self.context, self.module, EMULATOR, RUNTIME_EMULATOR);
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
        let number: BasicMetadataTypeEnum = i64_type.into();
        let parameters = [pointer.into(), number, number, number, number, number];
        let check = self.module.get_function(EMULATED_ACCESS).unwrap_or_else(|| {
            let ty = self.context.void_type().fn_type(&parameters, false);
            self.module.add_function(EMULATED_ACCESS, ty, None)
        });
        for (place, instruction) in instructions(function).into_iter().enumerate() {
            let Some((address, size, written)) = access(instruction) else {
                continue;
            };
            let base = self.base(address, function);
            let generic = address.get_type().get_address_space() == AddressSpace::default();
            if generic && (base == BASE_UNKNOWN || is_by_value(function, base)) {
                continue;
            }
            self.builder.position_before(&instruction);
            let plain = match generic {
                true => address,
                false => self.builder.build_address_space_cast(address, pointer, "")?,
            };
            let alignment = u64::from(instruction.get_alignment().unwrap_or(1));
            let arguments: [BasicMetadataValueEnum; 6] = [
                plain.into(),
                i64_type.const_int(place as u64, false).into(),
                size.into(),
                i64_type.const_int(alignment, false).into(),
                i64_type.const_int(u64::from(written), false).into(),
                i64_type.const_int(base as u64, true).into(),
            ];
            self.builder.build_call(check, &arguments, "")?;
        }
        Ok(())
    }

    /// What an address in a function is based on. Only a kernel's parameters are what the runtime knows.
    fn base(&self, address: PointerValue<'c>, function: FunctionValue<'c>) -> i64 {
        let name = function.get_name().to_string_lossy();
        match self.names.contains(&&*name) {
            true => provenance::base(address, &function.get_params()),
            false => provenance::base(address, &[]),
        }
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
            if is_by_value(kernel, i as i64) {
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

/// All instructions of a function, as they are now.
fn instructions<'c>(function: FunctionValue<'c>) -> Vec<InstructionValue<'c>> {
    let blocks = function.get_basic_blocks();
    blocks.iter().flat_map(|block| block.get_instructions()).collect()
}

/// Whether a parameter is passed by value: all other pointers of kernels are to global memory.
fn is_by_value(kernel: FunctionValue, parameter: i64) -> bool {
    let parameter = u32::try_from(parameter)
        .ok()
        .and_then(|i| kernel.get_nth_param(i));
    matches!(parameter, Some(BasicValueEnum::PointerValue(pointer))
        if pointer.get_type().get_address_space() == AddressSpace::default())
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

#[cfg(test)]
mod tests {
    use inkwell::memory_buffer::MemoryBuffer;

    use super::*;

    /// The bases that accesses and copies are told of, in the order of the text; `body` is that of a kernel with the
    /// pointers `%a` and `%b`, the number `%i` and the condition `%c`.
    fn bases(body: &str) -> Vec<i64> {
        let copy = "llvm.nvvm.cp.async.ca.shared.global.4";
        let text = format!(
            "@shared = external addrspace(3) global [0 x i8]\n\
             declare void @{copy}(ptr addrspace(3), ptr addrspace(1))\n\
             define ptx_kernel void @k(ptr addrspace(1) %a, ptr addrspace(1) %b, i64 %i, i1 %c) {{\n{body}\nret void\n}}\n"
        );
        let context = Context::create();
        let buffer = MemoryBuffer::create_from_memory_range_copy(text.as_bytes(), "test");
        let module = context.create_module_from_ir(buffer).unwrap();
        retarget(&context, &module, &["k"]).unwrap();
        module.verify().unwrap();
        let text = module.print_to_string().to_string();
        let calls = text.lines().filter(|line| {
            line.contains("call void @syncbn_emu_access(")
                || line.contains("call void @emulate.syncbn_emu_cp_async")
        });
        let base = |line: &str| {
            line.trim_end_matches(')')
                .rsplit_once("i64 ")
                .unwrap()
                .1
                .parse()
                .unwrap()
        };
        calls.map(base).collect()
    }

    #[test]
    fn addresses_are_traced_to_parameters() {
        let through_sums = "%p = getelementptr float, ptr addrspace(1) %b, i64 %i\n\
                            %q = getelementptr float, ptr addrspace(1) %p, i64 1\n\
                            %x = load float, ptr addrspace(1) %q\n\
                            store float %x, ptr addrspace(1) %a";
        assert_eq!(bases(through_sums), [1, 0]);
        let through_casts = "%p = addrspacecast ptr addrspace(1) %b to ptr\n\
                             %q = getelementptr float, ptr %p, i64 %i\n\
                             %x = load float, ptr %q";
        assert_eq!(bases(through_casts), [1]);
    }

    #[test]
    fn choices_have_a_base_where_they_agree() {
        let of = |first: &str, second: &str| {
            bases(&format!(
                "%p = getelementptr float, ptr addrspace(1) {first}, i64 1\n\
                 %q = select i1 %c, ptr addrspace(1) %p, ptr addrspace(1) {second}\n\
                 store float 0.0, ptr addrspace(1) %q"
            ))
        };
        assert_eq!(of("%b", "%b"), [1]);
        assert_eq!(of("%b", "%a"), [BASE_UNKNOWN]);
    }

    #[test]
    fn loops_that_move_an_address_keep_its_base() {
        let body = "br label %head\nhead:\n\
                    %p = phi ptr addrspace(1) [ %b, %0 ], [ %q, %head ]\n\
                    store float 0.0, ptr addrspace(1) %p\n\
                    %q = getelementptr float, ptr addrspace(1) %p, i64 1\n\
                    br i1 %c, label %head, label %end\nend:";
        assert_eq!(bases(body), [1]);
    }

    #[test]
    fn loaded_addresses_have_no_base_and_shared_memory_its_own() {
        let body = "%p = load ptr addrspace(1), ptr addrspace(1) %a\n\
                    store float 0.0, ptr addrspace(1) %p\n\
                    store float 0.0, ptr addrspace(3) @shared";
        assert_eq!(bases(body), [0, BASE_UNKNOWN, syncbn_abi::BASE_SHARED]);
    }

    #[test]
    fn asynchronous_copies_are_told_the_base_of_their_source() {
        let body = "%p = getelementptr i8, ptr addrspace(1) %b, i64 %i\n\
                    call void @llvm.nvvm.cp.async.ca.shared.global.4(ptr addrspace(3) @shared, ptr addrspace(1) %p)";
        assert_eq!(bases(body), [1]);
    }
}
