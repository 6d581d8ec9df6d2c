//! Kernels in LLVM IR as text, and faults in them.

/// A kernel in the text, from its `define` to its closing brace.
pub struct Kernel<'t> {
    pub name: &'t str,
    pub lines: Vec<(usize, &'t str)>,
}

/// The kernels of a module.
pub fn kernels(text: &str) -> Vec<Kernel<'_>> {
    let mut all = Vec::new();
    let mut current: Option<Kernel> = None;
    for (i, line) in text.lines().enumerate() {
        if line.starts_with("define internal") && line.contains("void @") {
            let name = line.split("void @").nth(1).unwrap().split('(').next().unwrap();
            current = Some(Kernel {
                name,
                lines: Vec::new(),
            });
        } else if line == "}" {
            all.extend(current.take());
        } else if let Some(kernel) = &mut current {
            kernel.lines.push((i, line));
        }
    }
    all
}

/// A planted fault: what it is, and the lines that change.
pub struct Mutant {
    pub what: String,
    changes: Vec<(usize, String)>,
}

impl Kernel<'_> {
    /// A fault of this kernel; None where no line changes.
    pub fn mutant(&self, what: &str, changes: Vec<(usize, String)>) -> Option<Mutant> {
        let what = format!("{}: {what}", self.name);
        (!changes.is_empty()).then_some(Mutant { what, changes })
    }
}

impl Mutant {
    /// The functions with this fault, as a module that takes all others from elsewhere.
    pub fn of(&self, text: &str) -> String {
        let mut lines: Vec<&str> = text.lines().collect();
        for (i, line) in &self.changes {
            lines[*i] = line;
        }
        let mut changed = String::new();
        let mut at = 0;
        while at < lines.len() {
            let length = length(&lines[at..]);
            let whole = at..at + length;
            let line = lines[at];
            let is_changed = self.changes.iter().any(|(i, _)| whole.contains(i));
            match line.strip_prefix("define internal ") {
                Some(head) if is_changed => {
                    changed += &format!("define hidden {head}\n{}\n", lines[whole][1..].join("\n"));
                }
                Some(head) => changed += &format!("declare {}\n", head.trim_end_matches(" {")),
                // What tables hold is defined once.
                None if line.starts_with('@') && !line.contains(" external ") => {}
                None => changed += &format!("{}\n", lines[whole].join("\n")),
            }
            at += length;
        }
        changed
    }
}

/// Lines of the function that begins here, or one.
fn length(lines: &[&str]) -> usize {
    match lines[0].starts_with("define ") {
        true => 1 + lines.iter().position(|line| *line == "}").unwrap(),
        false => 1,
    }
}

/// The module with functions that those of the same names in another one take the place of.
pub fn replaceable(text: &str) -> String {
    text.replace("define internal ", "define weak hidden ")
}
