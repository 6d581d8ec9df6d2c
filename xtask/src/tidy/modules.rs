//! Rules about the modules of a crate: which of them may name which.

use std::collections::BTreeSet;

use super::{Problem, Source};

/// A crate whose modules stand in storeys. A module may name modules of lower storeys, and no others: so what stands
/// beside it knows nothing of it, and there are no circles.
struct House {
    /// The crate's sources.
    folder: &'static str,
    /// Top modules, the highest storey first. The crate's root stands above all.
    storeys: &'static [&'static [&'static str]],
}

const HOUSES: [House; 2] = [RUNTIME, MLIR];

const RUNTIME: House = House {
    folder: "crates/runtime/src/",
    storeys: &[
        &["entry"],
        &["commands"],
        &["place"],
        &["program"],
        &["cpu", "gpu"],
        &["cli", "execution", "functions", "launcher", "processor"],
        &["files"],
        &[
            "arena",
            "initial",
            "learning_rate",
            "optimizer",
            "order",
            "panics",
            "report",
            "sampler",
            "sizes",
            "trace",
        ],
        &["error"],
    ],
};

const MLIR: House = House {
    folder: "crates/mlir/src/",
    storeys: &[
        &["pipeline"],
        &["cpu", "gpu"],
        &["ops", "host"],
        &["program"],
        &["emit"],
        &["order"],
        &["error", "handle"],
    ],
};

/// Checks the modules of every house.
pub fn check(sources: &[Source]) -> Vec<Problem> {
    HOUSES.iter().flat_map(|house| house.check(sources)).collect()
}

impl House {
    fn check(&self, sources: &[Source]) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut present = BTreeSet::new();
        for source in sources {
            let Some(path) = source
                .path
                .strip_prefix(self.folder)
                .and_then(|path| path.strip_suffix(".rs"))
            else {
                continue;
            };
            let place: Vec<&str> = path.split('/').filter(|part| *part != "mod").collect();
            let (own, is_test) = (place[0], place.contains(&"tests"));
            if own == "lib" || is_test {
                continue;
            }
            present.insert(own);
            let Some(storey) = self.storey(own) else {
                continue;
            };
            for (line, named) in names(&source.text, place.len()) {
                if named == own || self.storey(&named).is_some_and(|other| other > storey) {
                    continue;
                }
                let text = format!(
                    "`{own}` may not name `{named}`, which is no module of a lower storey: move what both need down"
                );
                problems.push(Problem::error(&source.path, line, text));
            }
        }
        let listed: BTreeSet<&str> = self.storeys.iter().copied().flatten().copied().collect();
        let table = |text| Problem::error("xtask/src/tidy/modules.rs", 0, text);
        let (more, less) = (present.difference(&listed), listed.difference(&present));
        let root = self.folder;
        problems.extend(more.map(|name| table(format!("give `{name}` of {root} a storey"))));
        problems.extend(less.map(|name| table(format!("{root} has no module `{name}`"))));
        problems
    }

    fn storey(&self, module: &str) -> Option<usize> {
        self.storeys.iter().position(|storey| storey.contains(&module))
    }
}

/// The names below the crate's root that a file uses outside of its tests, with their lines. The file's module lies
/// `depth` below the root.
fn names(text: &str, depth: usize) -> Vec<(usize, String)> {
    let code = code(text);
    let up = "super::".repeat(depth);
    let mut found = Vec::new();
    for prefix in ["crate::", &up] {
        for (at, _) in code.match_indices(prefix) {
            let inside = |c: char| c.is_alphanumeric() || c == '_' || (c == ':' && prefix == up);
            if code[..at].chars().next_back().is_some_and(inside) {
                continue;
            }
            let line = code[..at].matches('\n').count() + 1;
            let heads = heads(&code[at + prefix.len()..]);
            found.extend(heads.into_iter().map(|name| (line, name)));
        }
    }
    found
}

/// The file without its comments and its inline tests, line by line.
fn code(text: &str) -> String {
    let mut lines: Vec<&str> = Vec::new();
    for line in text.lines() {
        if lines.last() == Some(&"#[cfg(test)]") && line.starts_with("mod ") && line.ends_with('{') {
            break;
        }
        lines.push(if line.trim_start().starts_with("//") {
            ""
        } else {
            line
        });
    }
    lines.join("\n")
}

/// The first names of what follows `crate::`: one, or those of a list in braces.
fn heads(rest: &str) -> Vec<String> {
    let word = |text: &str| -> String {
        let letters = text.chars().take_while(|c| c.is_alphanumeric() || *c == '_');
        letters.collect()
    };
    let Some(list) = rest.strip_prefix('{') else {
        return vec![word(rest)];
    };
    let mut depth = 0;
    let mut heads = vec![word(list.trim_start())];
    for (at, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => heads.push(word(list[at + 1..].trim_start())),
            _ => {}
        }
    }
    heads.retain(|name| !name.is_empty());
    heads
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The problems of a crate whose files besides `path` are empty.
    fn problems(house: &House, path: &str, text: &str) -> Vec<String> {
        let modules = house.storeys.iter().copied().flatten();
        let mut sources: Vec<Source> = modules
            .map(|name| Source {
                path: format!("{}{name}.rs", house.folder),
                text: String::new(),
            })
            .collect();
        sources.push(Source {
            path: format!("{}{path}", house.folder),
            text: text.to_owned(),
        });
        house.check(&sources).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn modules_may_name_lower_storeys_and_themselves() {
        let text = "use crate::{\n    gpu::part::GpuPart,\n    execution::{Execution, Purpose},\n};\n\
                    // crate::commands is fine in a comment\n\
                    #[cfg(test)]\nmod tests {\n    use crate::commands;\n}\n";
        assert_eq!(problems(&RUNTIME, "gpu/stream.rs", text), [""; 0]);
        assert_eq!(
            problems(&RUNTIME, "gpu/tests/mod.rs", "use crate::commands;"),
            [""; 0]
        );
        assert_eq!(problems(&RUNTIME, "lib.rs", "use crate::commands;"), [""; 0]);
    }

    #[test]
    fn modules_beside_and_above_are_found_with_their_line() {
        let text = "//! A.\n\nuse crate::{error::Result, gpu::Kind};\nfn a() { crate::commands::run() }\n";
        let found = problems(&RUNTIME, "cpu/rank.rs", text);
        assert_eq!(found.len(), 2, "{found:?}");
        let start = "error: crates/runtime/src/cpu/rank.rs:3: `cpu` may not name `gpu`";
        assert!(found[0].starts_with(start), "{found:?}");
        assert!(
            found[1].contains("rank.rs:4: `cpu` may not name `commands`"),
            "{found:?}"
        );
        let found = problems(&RUNTIME, "cpu/rank.rs", "use super::super::place::Place;");
        assert!(found[0].contains("`cpu` may not name `place`"), "{found:?}");
        assert_eq!(
            problems(&RUNTIME, "cpu/rank.rs", "use super::arena::Arena;"),
            [""; 0]
        );
    }

    #[test]
    fn operators_and_targets_of_the_lowering_do_not_know_each_other() {
        for (path, text) in [
            ("ops/conv.rs", "use crate::gpu::tile;"),
            ("ops/conv.rs", "use crate::cpu::winograd;"),
            ("cpu/conv.rs", "use crate::gpu::tile;"),
            ("gpu/conv.rs", "use crate::cpu::Program;"),
            ("emit/memory.rs", "use crate::program::Program;"),
            ("emit/memory.rs", "use crate::LowerError;"),
        ] {
            assert_eq!(problems(&MLIR, path, text).len(), 1, "{path}: {text}");
        }
        assert_eq!(
            problems(&MLIR, "cpu/conv.rs", "use crate::{emit::Val, ops::Target};"),
            [""; 0]
        );
    }

    #[test]
    fn the_table_has_every_module_and_no_others() {
        let found = problems(&RUNTIME, "new/mod.rs", "");
        assert!(
            found[0].contains("give `new` of crates/runtime/src/ a storey"),
            "{found:?}"
        );
        let none = RUNTIME.check(&[]);
        assert!(none[0].to_string().contains("has no module"), "{}", none[0]);
    }
}
