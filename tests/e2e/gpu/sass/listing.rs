//! nvdisasm's listings: the instructions of each kernel, and where each may go.

use std::collections::BTreeMap;

/// An instruction.
#[derive(Debug, Clone, PartialEq)]
pub struct Instruction {
    /// Its name with all that follows it, such as `LDG.E.128.CONSTANT`.
    pub opcode: String,
    /// Whether it may do nothing: it stands under a predicate, or takes one as a branch does.
    conditional: bool,
    /// The label that a branch goes to.
    label: Option<String>,
}

impl Instruction {
    /// The name without what follows it, such as `LDG`.
    pub fn stem(&self) -> &str {
        self.opcode.split('.').next().unwrap_or_default()
    }

    /// Whether it calls a function. One that calls a label of the kernel never comes back: for sm_80, a way to leave a
    /// loop with all threads of a warp together.
    pub fn calls(&self) -> bool {
        let label = self.label.as_deref().unwrap_or_default();
        self.stem() == "CALL" && !label.starts_with(".L_")
    }
}

/// A kernel and the functions that it calls, in the order of their code.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Kernel {
    /// Its symbol.
    pub name: String,
    /// The instructions; the kernel begins with the first.
    pub instructions: Vec<Instruction>,
    labels: BTreeMap<String, usize>,
}

impl Kernel {
    /// The instructions that may follow the one at `index`. A call goes on behind itself: what it calls comes back.
    pub fn next(&self, index: usize) -> Vec<usize> {
        let instruction = &self.instructions[index];
        let mut all = Vec::new();
        let goes_on = match instruction.stem() {
            _ if instruction.calls() => true,
            "EXIT" | "RET" | "KILL" => instruction.conditional,
            "BRA" | "CALL" => {
                let label = instruction.label.as_ref();
                let target = label.and_then(|label| self.labels.get(label));
                let target = target.unwrap_or_else(|| panic!("{}: a branch to nowhere", self.name));
                all.extend((*target < self.instructions.len()).then_some(*target));
                instruction.conditional
            }
            "BRX" | "JMX" | "JMP" => panic!("{}: {} may go anywhere", self.name, instruction.opcode),
            _ => true,
        };
        all.extend((goes_on && index + 1 < self.instructions.len()).then_some(index + 1));
        all
    }
}

/// Reads a listing of code sections (`nvdisasm -c`).
pub fn kernels(listing: &str) -> Vec<Kernel> {
    let mut all: Vec<Kernel> = Vec::new();
    for line in listing.lines() {
        let words = line.trim();
        if let Some(section) = words.strip_prefix(".section\t.text.") {
            all.push(Kernel {
                name: section.split(',').next().unwrap_or_default().to_string(),
                ..Kernel::default()
            });
        }
        let Some(kernel) = all.last_mut() else { continue };
        if let Some(label) = words.strip_suffix(':') {
            kernel.labels.insert(label.to_string(), kernel.instructions.len());
        } else if let Some((_, code)) = words.strip_prefix("/*").and_then(|rest| rest.split_once("*/")) {
            kernel.instructions.push(instruction(code.trim()));
        }
    }
    all
}

/// Reads `@!P0 BRA P1, `(.L_x_3) ;`.
fn instruction(code: &str) -> Instruction {
    let code = code.trim_end_matches(';').trim();
    let (guard, code) = match code.strip_prefix('@') {
        Some(rest) => {
            let (guard, code) = rest.split_once(' ').unwrap_or((rest, ""));
            (Some(guard), code.trim())
        }
        None => (None, code),
    };
    let (opcode, operands) = code.split_once(' ').unwrap_or((code, ""));
    let (before, label) = match operands.split_once("`(") {
        Some((before, label)) => (before, label.split(')').next().map(str::to_string)),
        None => (operands, None),
    };
    let branches = opcode == "BRA" || opcode.starts_with("BRA.");
    Instruction {
        opcode: opcode.to_string(),
        conditional: guard.is_some() || (branches && !before.trim().is_empty()),
        label,
    }
}
