//! Golden files of budgets: the tools, then a line for each kind of kernel.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::figures::{Change, Figures};
use crate::support::fixture;

const BLESS: &str = "SYNCBN_BLESS=1 cargo test --release --test e2e -- gpu::sass";

/// The golden file of a precision, and the tools that are here.
pub struct Golden {
    file: PathBuf,
    tools: String,
}

impl Golden {
    /// The one of this precision.
    pub fn new(precision: &str, tools: &str) -> Golden {
        Golden {
            file: fixture(&format!("sass/{precision}.txt")),
            tools: tools.to_string(),
        }
    }

    /// Fails where a figure is worse than recorded, or a kind of kernel is new or gone; says what is better. Blesses
    /// instead where that is asked for.
    #[allow(clippy::print_stderr)]
    pub fn compare(&self, found: &BTreeMap<String, Figures>) {
        let lines = found.iter().map(|(kind, figures)| format!("{kind}: {figures}\n"));
        let text: String = [format!("{}\n", self.tools)].into_iter().chain(lines).collect();
        let file = self.file.display();
        let recorded = std::fs::read_to_string(&self.file).unwrap_or_default();
        if std::env::var_os("SYNCBN_BLESS").is_some_and(|value| value == "1") {
            let in_ci = std::env::var_os("CI").is_some_and(|value| value == "true");
            assert!(!in_ci, "blessing is refused in CI");
            std::fs::write(&self.file, text).unwrap();
            return;
        }
        assert!(!recorded.is_empty(), "{file} is not there: {BLESS}");
        let tools = recorded.lines().next().unwrap_or_default();
        if tools != self.tools {
            eprintln!(
                "{file} is of {tools}, and here is {}: budgets are not compared",
                self.tools
            );
            return;
        }
        let (worse, better) = differences(&recorded, found);
        if !better.is_empty() {
            eprintln!(
                "{file} is out of date (better, or of no matter):\n  {}\n{BLESS}",
                better.join("\n  ")
            );
        }
        assert!(
            worse.is_empty(),
            "kernels grew past the budgets of {file} (recorded -> found):\n  {}\nif this is right: {BLESS}",
            worse.join("\n  ")
        );
    }
}

/// What is worse than in a golden file, and what is better or of no matter.
fn differences(recorded: &str, found: &BTreeMap<String, Figures>) -> (Vec<String>, Vec<String>) {
    let (mut worse, mut better) = (Vec::new(), Vec::new());
    let mut known = BTreeMap::new();
    for line in recorded.lines().skip(1) {
        match line
            .split_once(": ")
            .and_then(|(kind, text)| Some((kind, Figures::read(text)?)))
        {
            Some((kind, figures)) => {
                known.insert(kind, figures);
            }
            None => worse.push(format!("this line is none of a golden file: {line}")),
        }
    }
    for (kind, figures) in found {
        let Some(known) = known.remove(kind.as_str()) else {
            worse.push(format!("{kind} is new: {figures}"));
            continue;
        };
        for (change, text) in known.changes(figures) {
            let all = if change == Change::Worse {
                &mut worse
            } else {
                &mut better
            };
            all.push(format!("{kind}: {text}"));
        }
    }
    worse.extend(known.keys().map(|kind| format!("{kind} is gone")));
    (worse, better)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_and_kinds_that_come_or_go_are_worse() {
        let figures = |text: &str| Figures::read(text).unwrap();
        let recorded = "tools\na: registers=40 lds=2\nb: registers=8\nnonsense\n";
        let found = BTreeMap::from([
            ("a".to_string(), figures("registers=41 lds=1")),
            ("c".to_string(), figures("registers=9")),
        ]);
        let (worse, better) = differences(recorded, &found);
        assert_eq!(better, ["a: lds 2 -> 1"]);
        assert_eq!(worse.len(), 4, "{worse:#?}");
        assert_eq!(worse[0], "this line is none of a golden file: nonsense");
        assert_eq!(worse[1], "a: registers 40 -> 41");
        assert!(worse[2].starts_with("c is new: registers=9"));
        assert_eq!(worse[3], "b is gone");
    }
}
