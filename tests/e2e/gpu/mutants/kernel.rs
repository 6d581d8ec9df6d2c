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
    /// The module with this fault.
    pub fn of(&self, text: &str) -> String {
        let mut lines: Vec<&str> = text.lines().collect();
        for (i, line) in &self.changes {
            lines[*i] = line;
        }
        lines.join("\n") + "\n"
    }
}
