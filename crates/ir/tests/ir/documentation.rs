//! `docs/ir.md` keeps up with the operators, and its examples are graphs.

use std::collections::BTreeSet;
use std::path::Path;

use syncbn_ir::ops::Op;
use syncbn_ir::{parse, print, verify};

fn text() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/ir.md");
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn the_table_of_operators_is_complete() {
    let text = text();
    let table = text.split("\n## Operators\n").nth(1).unwrap();
    let rows = table
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let found: Vec<&str> = rows.collect();
    let (rows, names) = (
        found.iter().copied().collect(),
        Op::NAMES.iter().copied().collect(),
    );
    let missing: Vec<_> = BTreeSet::difference(&names, &rows).collect();
    let unknown: Vec<_> = BTreeSet::difference(&rows, &names).collect();
    assert!(
        missing.is_empty() && unknown.is_empty(),
        "missing {missing:?}, unknown {unknown:?}"
    );
    assert_eq!(found.len(), names.len(), "a row is there twice");
}

/// The graphs of the passes' golden tests, which have every operator with attributes that its users write.
fn golden_lines() -> Vec<String> {
    let passes = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/passes");
    let mut lines = Vec::new();
    for pass in std::fs::read_dir(passes).unwrap() {
        for file in std::fs::read_dir(pass.unwrap().path()).unwrap() {
            let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
            lines.extend(text.lines().map(str::to_string));
        }
    }
    lines
}

/// Operator and names of the attributes of a line such as `%1 = conv(%0) {groups = 1} : f32[4]`.
fn attributes(line: &str) -> Option<(&str, Vec<&str>)> {
    let (operator, rest) = line.trim().split_once(" = ")?.1.split_once('(')?;
    let inside = rest.split_once(") {")?.1.split_once("} :")?.0;
    // The schedule comes last and has names of its own.
    let inside = inside.split("schedule = ").next()?;
    let names = inside
        .split(", ")
        .filter_map(|part| Some(part.split_once(" = ")?.0));
    Some((operator, names.collect()))
}

#[test]
fn the_table_of_operators_has_every_attribute() {
    let text = text();
    let table = text.split("\n## Operators\n").nth(1).unwrap();
    let row = |name: &str| {
        let head = format!("| `{name}` |");
        table.lines().find(|line| line.starts_with(&head)).unwrap()
    };
    let has = |row: &str, attribute: &str| row.contains(&format!("`{attribute}`"));
    let lines = golden_lines();
    let mut seen = BTreeSet::new();
    for line in &lines {
        let Some((operator, names)) = attributes(line) else {
            continue;
        };
        let own = row(operator);
        let other = Op::NAMES
            .iter()
            .find(|name| own.contains(&format!("as `{name}`")));
        for name in names {
            let documented = has(own, name) || other.is_some_and(|other| has(row(other), name));
            assert!(documented, "the row of `{operator}` does not have `{name}`");
            seen.insert((operator, name));
        }
    }
    assert!(seen.len() > 40, "{} attributes were looked for", seen.len());
}

#[test]
fn examples_are_printed_graphs() {
    let text = text();
    let examples: Vec<&str> = text
        .split("```ir\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .collect();
    assert!(!examples.is_empty());
    for example in examples {
        let graph = parse(example).unwrap();
        assert_eq!(verify(&graph), Ok(()));
        let lines = example.lines().filter(|line| !line.starts_with("//"));
        assert_eq!(
            print(&graph).lines().collect::<Vec<_>>(),
            lines.collect::<Vec<_>>()
        );
    }
}

/// Every code block of `docs/add-an-op.md` stands, as it is, in the file that the text before it names last.
#[test]
fn the_walkthrough_quotes_the_sources() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let text = std::fs::read_to_string(root.join("docs/add-an-op.md")).unwrap();
    let mut parts = text.split("```rust\n");
    let mut before = parts.next().unwrap();
    let mut blocks = 0;
    for part in parts {
        let (block, after) = part.split_once("```").unwrap();
        let source = before.trim_end().strip_suffix("`:").unwrap();
        let file = source.rsplit('`').next().unwrap();
        let content = std::fs::read_to_string(root.join(file)).unwrap();
        assert!(content.contains(block), "{file} does not contain\n{block}");
        before = after;
        blocks += 1;
    }
    assert!(blocks >= 9, "{blocks} blocks");
}
