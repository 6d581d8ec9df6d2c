//! Tensors that begin one element late, so that the last access ends past them.

use super::kernel::{Kernel, Mutant, kernels};

/// The check before each access.
const ACCESS: &str = "call void @syncbn_emu_access(";

/// A fault of one parameter of a kernel.
pub struct Late {
    /// Its number.
    pub parameter: usize,
    /// How late the tensor begins: one element.
    pub bytes: u64,
    /// Whether the kernel writes it.
    pub written: bool,
    /// The fault.
    pub mutant: Mutant,
    /// The fault in a kernel whose accesses to this tensor may lie in any of its tensors.
    pub anywhere: Mutant,
}

/// All of them, for each parameter that a kernel uses.
pub fn late(text: &str) -> Vec<Late> {
    let all = kernels(text);
    let entry = |kernel: &Kernel| all.iter().find(|e| e.name == format!("enter.{}", kernel.name));
    let pairs = all.iter().filter_map(|kernel| Some((kernel, entry(kernel)?)));
    pairs
        .flat_map(|(kernel, entry)| {
            let loads = parameters(entry).into_iter();
            loads.filter_map(|(parameter, load)| kernel.late(parameter, load))
        })
        .collect()
}

/// Where an entry loads the pointers that it passes on: each with its number.
fn parameters<'t>(entry: &Kernel<'t>) -> Vec<(usize, (usize, &'t str))> {
    let mut all = Vec::new();
    let mut number = 0;
    for &(i, line) in &entry.lines {
        if let Some((_, offset)) = line.split_once("getelementptr inbounds nuw i8, ptr %0, i64 ") {
            number = offset.parse::<usize>().unwrap() / 8;
        } else if line.contains(" = load ptr addrspace(1), ") {
            all.push((number, (i, line)));
        }
    }
    all
}

impl Kernel<'_> {
    /// The fault of one parameter, whose pointer is loaded in this line of the entry; None if nothing is accessed there.
    fn late(&self, parameter: usize, (i, load): (usize, &str)) -> Option<Late> {
        let end = format!(", i64 {parameter})");
        let checks = self
            .lines
            .iter()
            .filter(|(_, l)| l.contains(ACCESS) && l.ends_with(&end));
        let checks: Vec<(usize, &str)> = checks.copied().collect();
        let number = |line: &str, index: usize| -> u64 {
            let word = line.rsplit(", i64 ").nth(index).unwrap();
            word.trim_end_matches(')').parse().unwrap()
        };
        let bytes = checks.iter().map(|(_, check)| number(check, 3)).max()?;
        let (value, loaded) = load.trim_start().split_once(" = ").unwrap();
        let early = format!("%early{}", &value[1..]);
        let moved =
            format!("{early} = {loaded}\n{value} = getelementptr i8, ptr addrspace(1) {early}, i64 {bytes}");
        let anywhere = checks.iter().map(|(i, check)| {
            let head = check.strip_suffix(&end).unwrap();
            (*i, format!("{head}, i64 -1)"))
        });
        let what = format!("parameter {parameter} is {bytes} bytes late");
        Some(Late {
            parameter,
            bytes,
            written: checks.iter().any(|(_, check)| number(check, 1) == 1),
            mutant: self.mutant(&what, vec![(i, moved.clone())])?,
            anywhere: self.mutant(&what, anywhere.chain([(i, moved)]).collect())?,
        })
    }
}
