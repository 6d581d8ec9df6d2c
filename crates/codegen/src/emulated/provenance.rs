//! Which parameter of a kernel an address is based on, found by walking back to where the address comes from.

use std::collections::HashSet;

use inkwell::AddressSpace;
use inkwell::values::{BasicValue, BasicValueEnum, InstructionOpcode, PhiValue, PointerValue};
use syncbn_abi::{BASE_SHARED, BASE_UNKNOWN};

/// LLVM's number of NVPTX's shared memory.
pub const SHARED: u16 = 3;

/// What `address` is based on: the number of one of `parameters`, or one of `syncbn_abi`'s `BASE_` constants.
pub fn base<'c>(address: PointerValue<'c>, parameters: &[BasicValueEnum<'c>]) -> i64 {
    if address.get_type().get_address_space() == AddressSpace::from(SHARED) {
        return BASE_SHARED;
    }
    let mut found = None;
    let mut seen = HashSet::new();
    let mut open = vec![address.as_basic_value_enum()];
    while let Some(value) = open.pop() {
        if !seen.insert(value) {
            continue;
        }
        if let Some(number) = parameters.iter().position(|&parameter| parameter == value) {
            if found.replace(number).is_some_and(|other| other != number) {
                return BASE_UNKNOWN;
            }
            continue;
        }
        match sources(value) {
            Some(sources) => open.extend(sources),
            None => return BASE_UNKNOWN,
        }
    }
    found.map_or(BASE_UNKNOWN, |number| number as i64)
}

/// The pointers of which a value is one, or from which it is computed; None where that is not known.
fn sources(value: BasicValueEnum<'_>) -> Option<Vec<BasicValueEnum<'_>>> {
    let BasicValueEnum::PointerValue(pointer) = value else {
        return None;
    };
    let instruction = pointer.as_instruction()?;
    let operand = |index| instruction.get_operand(index).and_then(|operand| operand.value());
    match instruction.get_opcode() {
        InstructionOpcode::GetElementPtr
        | InstructionOpcode::AddrSpaceCast
        | InstructionOpcode::BitCast
        | InstructionOpcode::Freeze => Some(vec![operand(0)?]),
        InstructionOpcode::Select => Some(vec![operand(1)?, operand(2)?]),
        InstructionOpcode::Phi => {
            let phi = PhiValue::try_from(instruction).ok()?;
            Some(phi.get_incomings().map(|(value, _)| value).collect())
        }
        _ => None,
    }
}
