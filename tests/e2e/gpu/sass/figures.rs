//! What is counted of a kernel, and how kernels of one kind are taken together.

use std::collections::BTreeSet;
use std::fmt;

use super::flow::{innermost, loops};
use super::listing::{Instruction, Kernel};

/// What is counted, in the order of a golden file's line, which leaves zeros out.
pub const NAMES: [&str; 15] = [
    "registers",
    "local",
    "calls_in_loops",
    "calls",
    "products",
    "instructions",
    "ldsm",
    "lds",
    "sts",
    "conversions",
    "mufu",
    "mulhi",
    "barriers",
    "widest",
    "narrowest",
];
/// Bytes of loads, of which more is better. 0 where nothing is loaded.
const WIDTHS: [&str; 2] = ["widest", "narrowest"];
/// Says how much of the loop's work one turn does, and is neither good nor bad.
const SIZE: &str = "products";

/// The figures of a kind of kernel, by [`NAMES`].
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Figures([f64; NAMES.len()]);

/// How a figure differs from the recorded one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Better, or neither.
    Fine,
    Worse,
}

impl Figures {
    /// Counts a kernel whose threads have so many registers. What is not said of the whole kernel is said of its main
    /// loop: of those that hold no other one, the one with the most matrix instructions, then the longest; without a
    /// loop, of all its code. Where that has matrix instructions, the figure is the number for each of them.
    pub fn of(kernel: &Kernel, registers: u64) -> Figures {
        let loops = loops(kernel);
        let all = &kernel.instructions;
        let stands = |index: &usize, stem: &str| all[*index].stem() == stem;
        let products = |members: &BTreeSet<usize>| members.iter().filter(|at| stands(at, "HMMA")).count();
        let main = innermost(&loops).max_by_key(|members| (products(members), members.len()));
        let whole = (0..all.len()).filter(|at| !stands(at, "NOP")).collect();
        let main = main.unwrap_or(&whole);
        let in_loops: BTreeSet<usize> = loops.values().flatten().copied().collect();
        let body: Vec<&Instruction> = main.iter().map(|at| &all[*at]).collect();
        let products = products(main);
        let share = |matches: &dyn Fn(&Instruction) -> bool| {
            let found = body.iter().filter(|one| matches(one)).count();
            found as f64 / products.max(1) as f64
        };
        let count = |stems: &[&str]| share(&|one| stems.contains(&one.stem()));
        let widths = || body.iter().filter_map(|one| global_load(one));
        Figures([
            registers as f64,
            all.iter()
                .filter(|one| ["LDL", "STL"].contains(&one.stem()))
                .count() as f64,
            in_loops.iter().filter(|at| all[**at].calls()).count() as f64,
            share(&Instruction::calls),
            products as f64,
            share(&|_| true),
            count(&["LDSM"]),
            count(&["LDS"]),
            count(&["STS"]),
            count(&["F2F", "F2FP", "F2I", "I2F", "I2FP", "F2IP", "FRND"]),
            count(&["MUFU"]),
            share(&is_high_product),
            count(&["BAR"]),
            widths().max().unwrap_or(0) as f64,
            widths().min().unwrap_or(0) as f64,
        ])
    }

    /// The worse figure of each, of two kernels of one kind.
    pub fn worse(self, other: Figures) -> Figures {
        let mut all = self;
        for (i, (mine, its)) in all.0.iter_mut().zip(other.0).enumerate() {
            *mine = match WIDTHS.contains(&NAMES[i]) && *mine > 0.0 && its > 0.0 {
                true => mine.min(its),
                false => mine.max(its),
            };
        }
        all
    }

    /// The figure of a name.
    pub fn get(&self, name: &str) -> Option<f64> {
        let place = NAMES.iter().position(|known| *known == name)?;
        Some(self.0[place])
    }

    /// Reads what `Display` writes.
    pub fn read(text: &str) -> Option<Figures> {
        let mut all = Figures::default();
        for word in text.split_whitespace() {
            let (name, value) = word.split_once('=')?;
            let place = NAMES.iter().position(|known| *known == name)?;
            all.0[place] = value.parse().ok()?;
        }
        Some(all)
    }

    /// How `found` differs from the figures recorded here, in the digits of a golden file.
    pub fn changes(&self, found: &Figures) -> Vec<(Change, String)> {
        let pairs = NAMES.iter().zip(self.0.iter().zip(&found.0));
        let differing = pairs.filter(|(_, (old, new))| shown(**old) != shown(**new));
        differing
            .map(|(name, (old, new))| {
                let change = match (new > old) != WIDTHS.contains(name) && *name != SIZE {
                    true => Change::Worse,
                    false => Change::Fine,
                };
                (change, format!("{name} {} -> {}", shown(*old), shown(*new)))
            })
            .collect()
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = NAMES.iter().zip(self.0).filter(|(_, value)| *value != 0.0);
        let words: Vec<String> = words
            .map(|(name, value)| format!("{name}={}", shown(value)))
            .collect();
        f.write_str(&words.join(" "))
    }
}

/// A whole number, or two digits after the point.
fn shown(value: f64) -> String {
    match value == value.round() {
        true => format!("{value}"),
        false => format!("{value:.2}"),
    }
}

/// High halves of products, by which integers are divided.
fn is_high_product(instruction: &Instruction) -> bool {
    ["IMAD", "UIMAD"].contains(&instruction.stem()) && instruction.opcode.contains(".HI")
}

/// Bytes that a thread takes from global memory at once, into registers (`LDG`) or shared memory (`LDGSTS`).
fn global_load(instruction: &Instruction) -> Option<u64> {
    if !["LDG", "LDGSTS"].contains(&instruction.stem()) {
        return None;
    }
    let has = |part: &str| instruction.opcode.split('.').any(|known| known == part);
    let widths = [
        ("128", 16),
        ("64", 8),
        ("U16", 2),
        ("S16", 2),
        ("U8", 1),
        ("S8", 1),
    ];
    let known = widths.iter().find(|(part, _)| has(part));
    Some(known.map_or(4, |(_, bytes)| *bytes))
}

#[cfg(test)]
mod tests {
    use super::super::listing::kernels;
    use super::*;

    const LISTING: &str = "
\t.section\t.text.k,\"ax\",@progbits
        /*0000*/                   LDG.E.CONSTANT R4, desc[UR4][R2.64] ;
.L_x_0:
        /*0010*/                   LDGSTS.E.BYPASS.128 [R8], desc[UR4][R2.64] ;
        /*0020*/                   LDG.E.64 R4, desc[UR4][R2.64] ;
        /*0030*/                   LDSM.16.M88.4 R4, [R5] ;
        /*0040*/                   HMMA.1688.F32.TF32 R4, R4, R8, R12 ;
        /*0050*/                   HMMA.1688.F32.TF32 R4, R4, R8, R12 ;
        /*0060*/                   IMAD.HI.U32 R5, R6, R7, RZ ;
        /*0070*/                   CALL.REL.NOINC `($f) ;
        /*0080*/               @P0 BRA `(.L_x_0) ;
        /*0090*/                   STL [R1], R4 ;
        /*00a0*/                   EXIT ;
$f:
        /*00b0*/                   RET.REL.NODEC R2 `(k) ;
";
    const LINE: &str = "registers=40 local=1 calls_in_loops=1 calls=0.50 products=2 instructions=4 ldsm=0.50 \
                        mulhi=0.50 widest=16 narrowest=8";

    #[test]
    fn a_main_loop_is_counted_for_each_matrix_instruction() {
        let figures = Figures::of(&kernels(LISTING)[0], 40);
        assert_eq!(figures.to_string(), LINE);
        assert_eq!(Figures::read(LINE), Some(figures));
    }

    #[test]
    fn growth_is_worse_but_of_load_widths() {
        let old = Figures::read(LINE).unwrap();
        let new = LINE
            .replace("registers=40", "registers=39")
            .replace("ldsm=0.50", "ldsm=0.75");
        let new = Figures::read(&new.replace("products=2", "products=4").replace("st=8", "st=4")).unwrap();
        let changes = old.changes(&new);
        let changes: Vec<(Change, &str)> = changes
            .iter()
            .map(|(change, text)| (*change, text.as_str()))
            .collect();
        assert_eq!(
            changes,
            [
                (Change::Fine, "registers 40 -> 39"),
                (Change::Fine, "products 2 -> 4"),
                (Change::Worse, "ldsm 0.50 -> 0.75"),
                (Change::Worse, "narrowest 8 -> 4"),
            ]
        );
        assert!(old.changes(&old).is_empty());
        assert_eq!(old.worse(new).get("registers"), Some(40.0));
        assert_eq!(old.worse(new).get("narrowest"), Some(4.0));
        assert_eq!(old.worse(new).get("widest"), Some(16.0));
    }
}
