//! Golden files of the passes: `tests/fixtures/passes/PASS/CASE.ir` and the printed result in `CASE.expect`.

use std::collections::{BTreeMap, BTreeSet};

use super::{Problem, Source};

const FOLDER: &str = "tests/fixtures/passes/";

/// Checks pairs, first lines, and that every pass has cases. `sources` are all texts of the repository.
pub fn check(sources: &[Source]) -> Vec<Problem> {
    let goldens: BTreeMap<&str, &str> = sources
        .iter()
        .filter(|source| source.path.starts_with(FOLDER))
        .map(|source| (source.path.as_str(), source.text.as_str()))
        .collect();
    let mut problems = Vec::new();
    for (path, text) in &goldens {
        if let Some(stem) = path.strip_suffix(".expect") {
            if !goldens.contains_key(format!("{stem}.ir").as_str()) {
                problems.push(Problem::error(
                    path,
                    0,
                    "no .ir file of this name: delete it or bring the case back",
                ));
            }
        } else if let Some(stem) = path.strip_suffix(".ir") {
            let expects_error = text.contains("// error:");
            if !expects_error && !goldens.contains_key(format!("{stem}.expect").as_str()) {
                problems.push(Problem::error(
                    path,
                    0,
                    "no .expect file of this name: run `cargo xtask bless`",
                ));
            }
            problems.extend(opening(path, text));
        }
    }
    problems.extend(passes_without_cases(sources, &goldens));
    problems
}

/// A case says which passes run, and then why it exists.
fn opening(path: &str, text: &str) -> Option<Problem> {
    let mut lines = text.lines();
    if !lines.next().is_some_and(|line| line.starts_with("// RUN: ")) {
        return Some(Problem::error(
            path,
            1,
            "start the case with `// RUN: --passes=...`",
        ));
    }
    let reason = lines
        .next()
        .is_some_and(|line| line.starts_with("// ") && line.len() > 3);
    (!reason).then(|| Problem::error(path, 2, "say in a comment why this case exists"))
}

/// Every folder under `passes/` has a case, and so has every pass: a file of the passes crate that holds a
/// `PassInfo` or `impl Pass for`, whose folder is its name with dashes.
fn passes_without_cases(sources: &[Source], goldens: &BTreeMap<&str, &str>) -> Vec<Problem> {
    let folder = |path: &str| {
        path.strip_prefix(FOLDER)
            .and_then(|p| p.split_once('/'))
            .map(|(f, _)| f.to_owned())
    };
    let with_cases: BTreeSet<String> = goldens
        .keys()
        .filter(|path| path.ends_with(".ir"))
        .filter_map(|path| folder(path))
        .collect();
    let mut problems: Vec<Problem> = goldens
        .keys()
        .filter_map(|path| folder(path))
        .collect::<BTreeSet<String>>()
        .difference(&with_cases)
        .map(|name| Problem::error(&format!("{FOLDER}{name}"), 0, "this folder holds no .ir case"))
        .collect();
    for source in sources {
        if let Some(name) = pass_name(source).filter(|name| !with_cases.contains(name)) {
            let text = format!("the pass has no golden case in {FOLDER}{name}");
            problems.push(Problem::error(&source.path, 0, text));
        }
    }
    problems
}

/// The command-line name of the pass that a file of the passes crate implements.
fn pass_name(source: &Source) -> Option<String> {
    let inside = source.path.strip_prefix("passes/src/")?;
    let stem = inside
        .strip_suffix("/mod.rs")
        .or_else(|| inside.strip_suffix(".rs"))?;
    let implements = source.text.lines().any(|line| line.starts_with("impl Pass for "));
    (implements && !stem.contains('/')).then(|| stem.replace('_', "-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(files: &[(&str, &str)]) -> Vec<String> {
        let sources: Vec<Source> = files
            .iter()
            .map(|(path, text)| Source {
                path: (*path).to_owned(),
                text: (*text).to_owned(),
            })
            .collect();
        check(&sources)
            .into_iter()
            .map(|problem| problem.to_string())
            .collect()
    }

    const CASE: &str = "// RUN: --passes=dce\n// A value that nobody reads goes away.\ngraph {}\n";

    #[test]
    fn a_pair_passes_and_so_does_an_error_case_alone() {
        let pair = [
            ("tests/fixtures/passes/dce/a.ir", CASE),
            ("tests/fixtures/passes/dce/a.expect", "graph {}\n"),
        ];
        assert_eq!(problems(&pair), Vec::<String>::new());
        let error = format!("{CASE}// error: cycle\n");
        assert_eq!(
            problems(&[("tests/fixtures/passes/dce/b.ir", &error)]),
            Vec::<String>::new()
        );
    }

    #[test]
    fn an_orphan_of_either_kind_fails() {
        let found = problems(&[("tests/fixtures/passes/dce/a.expect", "graph {}\n")]);
        assert!(
            found[0].contains("no .ir file of this name") && found[1].contains("holds no .ir case"),
            "{found:?}"
        );
        let found = problems(&[("tests/fixtures/passes/dce/a.ir", CASE)]);
        assert!(found[0].contains("no .expect file of this name"), "{found:?}");
    }

    #[test]
    fn a_case_opens_with_its_passes_and_its_reason() {
        let found = problems(&[("tests/fixtures/passes/dce/a.ir", "graph {} // error: x\n")]);
        assert!(found[0].contains("a.ir:1: start the case"), "{found:?}");
        let found = problems(&[(
            "tests/fixtures/passes/dce/a.ir",
            "// RUN: --passes=dce\ngraph {} // error: x\n",
        )]);
        assert!(found[0].contains("a.ir:2: say in a comment why"), "{found:?}");
    }

    #[test]
    fn a_pass_without_cases_fails() {
        let pass = (
            "passes/src/fold_constants.rs",
            "//! Folds.\nimpl Pass for FoldConstants {\n",
        );
        let found = problems(&[pass]);
        assert!(
            found[0].contains("no golden case in tests/fixtures/passes/fold-constants"),
            "{found:?}"
        );
        let listed = ("passes/src/manager.rs", "//! Runs passes.\nstruct Manager;\n");
        assert_eq!(problems(&[listed]), Vec::<String>::new());
    }
}
