//! Faults in kernels whose threads share memory and multiply matrices together.

use super::kernel::{Kernel, Mutant};

/// What [`Kernel::cooperative`] plants.
pub const KINDS: [&str; 8] = [
    "no barrier",
    "no commit",
    "a wait too short",
    "registers",
    "of a fragment",
    "xor",
    "one row too many",
    "one pixel too many",
];

/// In the name of a matrix instruction.
const MULTIPLY: &str = "mma_m16n8k";

impl Kernel<'_> {
    /// All of them; none in a kernel without matrix instructions.
    pub fn cooperative(&self) -> Vec<Mutant> {
        if self.with(MULTIPLY).next().is_none() {
            return Vec::new();
        }
        let mut all = self.left_out("barrier", "no barrier");
        all.extend(self.left_out("cp_async_commit", "no commit"));
        all.extend(self.waits());
        all.extend(self.fragments());
        all.extend(self.registers());
        all.extend(self.swizzles());
        all.extend(self.guards());
        all
    }

    /// Calls of what the emulator replaces.
    fn with(&self, intrinsic: &'static str) -> impl DoubleEndedIterator<Item = (usize, &str)> {
        let calls = self.lines.iter().filter(|(_, l)| l.contains(" call "));
        calls
            .filter(move |(_, l)| l.contains("syncbn_emu_") && l.contains(intrinsic))
            .map(|(i, l)| (*i, *l))
    }

    /// Each call is left out.
    fn left_out(&self, intrinsic: &'static str, what: &str) -> Vec<Mutant> {
        self.with(intrinsic)
            .filter_map(|(i, _)| self.mutant(what, vec![(i, String::new())]))
            .collect()
    }

    /// Each wait leaves one more group of copies under way. One that leaves none follows the last use of any copy.
    fn waits(&self) -> Vec<Mutant> {
        let mutant = |(i, line): (usize, &str)| {
            let (head, count) = line.strip_suffix(')')?.rsplit_once("(i32 ")?;
            let count: u32 = count.parse().ok().filter(|&n| n > 0)?;
            self.mutant(
                "a wait too short",
                vec![(i, format!("{head}(i32 {})", count + 1))],
            )
        };
        self.with("cp_async_wait").filter_map(mutant).collect()
    }

    /// Every product takes two registers in the wrong order.
    fn fragments(&self) -> Vec<Mutant> {
        let swapped = |line: &str, [first, second]: [usize; 2]| {
            let (head, arguments) = line.rsplit_once('(')?;
            let mut arguments: Vec<&str> = arguments.strip_suffix(')')?.split(", ").collect();
            arguments.swap(first, second);
            Some(format!("{head}({})", arguments.join(", ")))
        };
        [[0, 1], [1, 2], [4, 5], [6, 7], [7, 8]]
            .into_iter()
            .filter_map(|pair| {
                let changes = self
                    .with(MULTIPLY)
                    .filter_map(|(i, l)| Some((i, swapped(l, pair)?)));
                self.mutant(&format!("registers {pair:?} swapped"), changes.collect())
            })
            .collect()
    }

    /// The registers of every loaded fragment are taken in the wrong order.
    fn registers(&self) -> Option<Mutant> {
        let loads: Vec<&str> = self
            .with("ldmatrix")
            .filter_map(|(_, load)| load.trim_start().split(' ').next())
            .collect();
        let other = |line: &str| {
            let (head, part) = line.rsplit_once(", ")?;
            let loaded =
                head.contains(" extractvalue ") && loads.iter().any(|l| head.ends_with(&format!(" {l}")));
            let part = part.parse::<u32>().ok().filter(|_| loaded)?;
            Some(format!("{head}, {}", part ^ 1))
        };
        let changes = self.lines.iter().filter_map(|(i, l)| Some((*i, other(l)?)));
        self.mutant("0 and 1, 2 and 3 of a fragment swapped", changes.collect())
    }

    /// Each exclusive or of an address in shared memory uses another 16-byte column.
    fn swizzles(&self) -> Vec<Mutant> {
        let mutant = |(i, line): &(usize, &str)| {
            let (head, right) = line.split_once(" = xor i32 ")?.1.split_once(", ")?;
            let changed = match right.parse::<i32>() {
                Ok(-1) => return None,
                Ok(column) => line.replace(&format!(", {right}"), &format!(", {}", column ^ 16)),
                Err(_) => line.replace(" = xor i32 ", " = or i32 "),
            };
            self.mutant(&format!("xor of {head} and {right} changed"), vec![(*i, changed)])
        };
        self.lines.iter().filter_map(mutant).collect()
    }

    /// Guards of one kind let one more through: all that compare with one of the sizes that the launch gives, and those
    /// that compare with what was made of the number of samples.
    fn guards(&self) -> Vec<Mutant> {
        let wider = |line: &str| line.replace(" ult ", " ule ").replace(" slt ", " sle ");
        let guard = |line: &str| line.contains(" = icmp ") && wider(line) != line;
        let guards: Vec<_> = self.lines.iter().filter(|(_, l)| guard(l)).collect();
        let changes = |size: Option<usize>| {
            let same = guards.iter().filter(|(_, l)| self.limit(l) == Some(size));
            same.map(|(i, l)| (*i, wider(l))).collect()
        };
        let mut sizes: Vec<usize> = guards.iter().filter_map(|(_, l)| self.limit(l)?).collect();
        sizes.sort_unstable();
        sizes.dedup();
        let rows = self.mutant("one row too many", changes(None));
        let of_size = |size| {
            self.mutant(
                &format!("one pixel too many of number {size}"),
                changes(Some(size)),
            )
        };
        rows.into_iter()
            .chain(sizes.into_iter().filter_map(of_size))
            .collect()
    }

    /// What the last operand of a line is, if it is a value: a number of the launch, by its place, or something else.
    fn limit(&self, line: &str) -> Option<Option<usize>> {
        let (_, right) = line.rsplit_once(", ")?;
        right.starts_with('%').then(|| self.given(right))
    }

    /// The place of the launch's number that a value is, or every lane of it; None if it is none.
    fn given(&self, value: &str) -> Option<usize> {
        let definition = self.definition(value)?;
        // A vector of one number is that number in lane 0, and then a shuffle.
        let source = match definition.split_once(' ') {
            Some(("shufflevector", operands)) => operands.split(", ").next(),
            Some(("insertelement", operands)) => operands.split(", ").nth(1),
            _ => {
                let address = definition.strip_prefix("load i32, ptr ")?;
                return self.place(address.split(',').next()?);
            }
        };
        self.given(source?.rsplit(' ').next()?)
    }

    /// The place of the number at an address in the numbers that a kernel takes.
    fn place(&self, address: &str) -> Option<usize> {
        let Some(definition) = self.definition(address) else {
            // The parameter itself.
            return Some(0);
        };
        let offset: usize = definition.rsplit(' ').next()?.parse().ok()?;
        match definition.contains(" i8, ptr ") {
            true => Some(offset / 4),
            false => Some(offset),
        }
    }

    fn definition(&self, value: &str) -> Option<&str> {
        let head = format!(" {value} = ");
        self.lines.iter().find_map(|(_, l)| Some(l.split_once(&head)?.1))
    }
}
