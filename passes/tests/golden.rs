//! Golden tests of the passes: `tests/fixtures/passes/<pass>/<what-it-shows>.ir`, run as its first line says, must
//! print what the sibling `.expect` holds. `SYNCBN_BLESS=1 cargo test -p syncbn-passes --test golden` writes the
//! `.expect` files anew; look at the difference before it is committed.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use libtest_mimic::{Arguments as TestArguments, Failed, Trial};
use similar::TextDiff;
use syncbn_passes::opt::{Arguments, optimize};

const BLESS: &str = "SYNCBN_BLESS=1 cargo test -p syncbn-passes --test golden";

fn main() -> ExitCode {
    let arguments = TestArguments::from_args();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/passes");
    let mut trials = Vec::new();
    for directory in entries(&root) {
        for file in entries(&directory) {
            let name = format!("{}/{}", label(&directory), label(&file));
            match file.extension().and_then(|e| e.to_str()) {
                Some("ir") => trials.push(Trial::test(name, move || check(&file))),
                Some("expect") => trials.push(Trial::test(format!("{name} (orphan)"), move || orphan(&file))),
                _ => trials.push(Trial::test(name, || Err("neither .ir nor .expect".into()))),
            }
        }
    }
    trials.push(Trial::test(
        "every pass has a case that changes and one that is left alone",
        move || both_kinds(&root),
    ));
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap_or_else(|e| panic!("{}: {e}", directory.display()));
    let mut paths: Vec<PathBuf> = entries.map(|e| e.unwrap().path()).collect();
    paths.sort();
    paths
}

fn label(path: &Path) -> String {
    path.file_stem()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

fn orphan(expect: &Path) -> Result<(), Failed> {
    match expect.with_extension("ir").exists() {
        true => Ok(()),
        false => Err(format!("{} has no .ir beside it: remove it", expect.display()).into()),
    }
}

/// A fixture's arguments: the first line is `// RUN: --passes=...`.
fn arguments(text: &str) -> Result<Arguments, Failed> {
    let mut lines = text.lines();
    let run = lines.next().and_then(|l| l.strip_prefix("// RUN: "));
    let run = run.ok_or("the first line is not `// RUN: --passes=...`")?;
    if !lines.next().is_some_and(|l| l.starts_with("// ")) {
        return Err("the second line is not a comment that says why the case exists".into());
    }
    let words: Vec<&str> = run.split_whitespace().collect();
    Ok(Arguments::parse(&words)?)
}

fn check(file: &Path) -> Result<(), Failed> {
    let text = std::fs::read_to_string(file)?;
    let arguments = arguments(&text)?;
    let lines = text.lines().enumerate();
    let errors: Vec<(usize, &str)> = lines.filter(|(_, line)| line.contains("// error: ")).collect();
    match (errors.as_slice(), optimize(&text, &arguments)) {
        ([], Err(failure)) => Err(failure.into()),
        (errors, Err(failure)) => {
            let message = failure.to_string();
            errors
                .iter()
                .try_for_each(|(number, line)| check_error(number + 1, line, &message))
        }
        ([_, ..], Ok(_)) => Err("an error was expected".into()),
        ([], Ok(written)) => {
            fixed_point(&text)?;
            fixed_point(&written.output)?;
            let again = optimize(&written.output, &arguments)?;
            equal("a second run changes the graph", &written.output, &again.output)?;
            let warnings = written.warnings.iter().map(|w| format!("warning: {w}"));
            let messages = written.shown.lines().map(str::to_string).chain(warnings);
            let messages: String = messages.map(|l| format!("// {l}\n")).collect();
            compare(file, &(messages + &written.output))
        }
    }
}

/// Parse, print, parse, print.
fn fixed_point(text: &str) -> Result<(), Failed> {
    let once = syncbn_ir::print(&syncbn_ir::parse(text)?);
    let twice = syncbn_ir::print(&syncbn_ir::parse(&once)?);
    equal("printing and parsing is not a fixed point", &once, &twice)
}

fn equal(what: &str, a: &str, b: &str) -> Result<(), Failed> {
    match a == b {
        true => Ok(()),
        false => Err(format!("{what}:\n{}", TextDiff::from_lines(a, b).unified_diff()).into()),
    }
}

/// The message holds the expected text and names the line, or something that stands in the line.
fn check_error(number: usize, line: &str, message: &str) -> Result<(), Failed> {
    let Some((code, expected)) = line.split_once("// error: ") else {
        return Err("no error text".into());
    };
    if !message.contains(expected.trim()) {
        return Err(format!(
            "expected an error with \"{}\", found:\n{message}",
            expected.trim()
        )
        .into());
    }
    let mut names = message.split('"').skip(1).step_by(2);
    match message.starts_with(&format!("line {number},")) || names.any(|n| code.contains(&format!("\"{n}\"")))
    {
        true => Ok(()),
        false => Err(format!("the error names nothing of line {number}:\n{message}").into()),
    }
}

fn compare(file: &Path, found: &str) -> Result<(), Failed> {
    let expect = file.with_extension("expect");
    let expected = std::fs::read_to_string(&expect).unwrap_or_default();
    if expected == found {
        return Ok(());
    }
    if std::env::var_os("SYNCBN_BLESS").is_some_and(|v| v == "1") {
        if std::env::var_os("CI").is_some_and(|v| v == "true") {
            return Err("blessing is refused in CI".into());
        }
        return Ok(std::fs::write(&expect, found)?);
    }
    let diff = TextDiff::from_lines(expected.as_str(), found);
    let diff = diff
        .unified_diff()
        .context_radius(3)
        .header("expected", "found")
        .to_string();
    Err(format!("{diff}\nif this is right: {BLESS}").into())
}

/// The folder of a pass holds a case whose graph changes and one whose graph does not.
fn both_kinds(root: &Path) -> Result<(), Failed> {
    for pass in syncbn_passes::pipelines::PASSES {
        let (mut changed, mut same) = (false, false);
        for file in entries(&root.join(pass.name())) {
            let text = std::fs::read_to_string(&file)?;
            if file.extension().is_none_or(|e| e != "ir") || text.contains("// error: ") {
                continue;
            }
            let arguments = arguments(&text)?;
            if !arguments.selection.passes.iter().any(|p| p == pass.name()) {
                return Err(format!("{} does not run {}", file.display(), pass.name()).into());
            }
            let output = optimize(&text, &arguments)?.output;
            let left_alone = syncbn_ir::print(&syncbn_ir::parse(&text)?) == output;
            let says_so = text
                .lines()
                .nth(1)
                .is_some_and(|line| line.starts_with("// Left alone: "));
            if left_alone && !says_so {
                let file = file.display();
                return Err(format!("{file} is left alone: begin its comment with `// Left alone: `").into());
            }
            changed |= !left_alone;
            same |= left_alone;
        }
        if !(changed && same) {
            return Err(format!("{}: change {changed}, left alone {same}", pass.name()).into());
        }
    }
    Ok(())
}
