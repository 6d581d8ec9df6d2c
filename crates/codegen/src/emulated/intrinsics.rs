//! NVVM's intrinsics as calls of the runtime.

use inkwell::AddressSpace;
use inkwell::module::Linkage;
use inkwell::types::BasicType;
use inkwell::values::{
    BasicMetadataValueEnum, BasicValue, BasicValueEnum, CallSiteValue, FunctionValue, InstructionValue,
};
use syncbn_abi::gpu_symbols::EMULATED_INTRINSIC;

use super::{Retargeting, instructions};
use crate::CodegenError;

/// LLVM's number of NVPTX's global memory.
const GLOBAL: u16 = 1;

impl<'c> Retargeting<'_, 'c> {
    /// An intrinsic becomes a function that calls the runtime's one: special registers by value, all others with
    /// the addresses of their arguments and of their result.
    pub(super) fn replace_intrinsic(
        &self,
        function: FunctionValue<'c>,
        name: &str,
    ) -> Result<(), CodegenError> {
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
            let addresses = function.get_param_iter().filter(is_global).count();
            let mut parameters: Vec<_> = function.get_param_iter().map(|p| p.get_type().into()).collect();
            parameters.resize(parameters.len() + addresses, self.context.i64_type().into());
            let ty = match ty.get_return_type() {
                Some(result) => result.fn_type(&parameters, false),
                None => self.context.void_type().fn_type(&parameters, false),
            };
            let own = self
                .module
                .add_function(&format!("emulate.{symbol}"), ty, Some(Linkage::Internal));
            self.forward(own, &symbol)?;
            if addresses == 0 {
                function.replace_all_uses_with(own);
            } else {
                self.call_with_bases(function, own)?;
            }
        }
        // SAFETY: nothing refers to the intrinsic any more.
        unsafe { function.delete() };
        Ok(())
    }

    /// Lets `own` call the runtime's function `symbol` with the addresses of its arguments and of its result.
    fn forward(&self, own: FunctionValue<'c>, symbol: &str) -> Result<(), CodegenError> {
        let pointer = self.context.ptr_type(AddressSpace::default());
        let by_address = self
            .context
            .void_type()
            .fn_type(&[pointer.into(), pointer.into()], false);
        let provided = self.module.add_function(symbol, by_address, None);
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
        match own.get_type().get_return_type() {
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
        Ok(())
    }

    /// Replaces all calls of an intrinsic by calls of `own`, which takes the bases of global addresses after the
    /// intrinsic's own arguments.
    fn call_with_bases(
        &self,
        intrinsic: FunctionValue<'c>,
        own: FunctionValue<'c>,
    ) -> Result<(), CodegenError> {
        let called = |instruction: InstructionValue<'c>| {
            let call = CallSiteValue::try_from(instruction).ok()?;
            call.get_called_fn_value()
        };
        for function in self.module.get_functions() {
            for instruction in instructions(function) {
                if called(instruction) != Some(intrinsic) {
                    continue;
                }
                let mut arguments: Vec<BasicMetadataValueEnum> = Vec::new();
                let mut bases: Vec<BasicMetadataValueEnum> = Vec::new();
                for index in 0..intrinsic.count_params() {
                    let operand = instruction.get_operand(index).and_then(|o| o.value());
                    let argument = operand.ok_or_else(|| {
                        CodegenError::Llvm("a call of an intrinsic lacks an argument".to_string())
                    })?;
                    arguments.push(argument.into());
                    if is_global(&argument) {
                        let base = self.base(argument.into_pointer_value(), function);
                        bases.push(self.context.i64_type().const_int(base as u64, true).into());
                    }
                }
                arguments.extend(bases);
                self.builder.position_before(&instruction);
                let call = self.builder.build_call(own, &arguments, "")?;
                if let Some(result) = call.try_as_basic_value().basic()
                    && let Some(result) = result.as_instruction_value()
                {
                    instruction.replace_all_uses_with(&result);
                }
                instruction.erase_from_basic_block();
            }
        }
        Ok(())
    }

    /// Threads meet in these calls: LLVM must not duplicate them or move them into branches.
    fn mark_convergent(&self, function: FunctionValue<'c>) {
        let kind = inkwell::attributes::Attribute::get_named_enum_kind_id("convergent");
        let attribute = self.context.create_enum_attribute(kind, 0);
        function.add_attribute(inkwell::attributes::AttributeLoc::Function, attribute);
    }
}

fn is_global(value: &BasicValueEnum) -> bool {
    match value {
        BasicValueEnum::PointerValue(p) => p.get_type().get_address_space() == AddressSpace::from(GLOBAL),
        _ => false,
    }
}
