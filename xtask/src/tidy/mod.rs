//! `cargo xtask tidy`: the habits of the house that a machine can check.
//!
//! Each rule is a function over plain text or parsed metadata, so its tests feed it bad input.

mod dependencies;
mod goldens;
mod links;
mod manifests;
mod modules;
mod sources;

use std::fmt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::metadata::Metadata;
use crate::notices;

/// One broken rule: a line to print, with the place where it can be mended.
#[derive(Debug, PartialEq, Eq)]
pub struct Problem {
    /// Path below the workspace root.
    pub path: String,
    /// Line from 1, or 0 where the whole file is meant.
    pub line: usize,
    /// What is wrong, and what to do.
    pub text: String,
    /// Warnings are printed and fail nothing.
    pub warning: bool,
}

impl Problem {
    /// A problem that fails the check.
    pub fn error(path: &str, line: usize, text: impl Into<String>) -> Self {
        Self {
            path: path.to_owned(),
            line,
            text: text.into(),
            warning: false,
        }
    }

    /// A problem that is only said.
    pub fn warning(path: &str, line: usize, text: impl Into<String>) -> Self {
        Self {
            warning: true,
            ..Self::error(path, line, text)
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.warning { "warning" } else { "error" };
        match self.line {
            0 => write!(f, "{kind}: {}: {}", self.path, self.text),
            line => write!(f, "{kind}: {}:{line}: {}", self.path, self.text),
        }
    }
}

/// A file of the repository: its path below the root, and its text.
pub struct Source {
    /// Path with `/` between folders.
    pub path: String,
    /// The whole text.
    pub text: String,
}

/// Runs every rule, prints what is broken, and answers whether nothing is.
pub fn run(root: &Path) -> Result<bool> {
    let paths = repository_files(root)?;
    let sources = read_texts(root, &paths)?;
    let metadata = Metadata::load(root, false)?;

    let mut problems = dependencies::check(&metadata);
    for source in &sources {
        problems.extend(sources::check(source));
        problems.extend(manifests::check(source));
        problems.extend(links::check(source, &paths));
    }
    problems.extend(goldens::check(&sources));
    problems.extend(modules::check(&sources));
    problems.extend(notices::check(root)?);

    problems.sort_by(|a, b| (&a.path, a.line).cmp(&(&b.path, b.line)));
    for problem in &problems {
        println!("{problem}");
    }
    let errors = problems.iter().filter(|problem| !problem.warning).count();
    println!(
        "tidy: {} files, {errors} errors, {} warnings",
        paths.len(),
        problems.len() - errors
    );
    Ok(errors == 0)
}

/// The files that git tracks, and those that it would if they were added.
fn repository_files(root: &Path) -> Result<Vec<String>> {
    let output = Command::new("git")
        .current_dir(root)
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .output()
        .context("git did not start")?;
    if !output.status.success() {
        bail!(
            "git ls-files failed: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    let names = output
        .stdout
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty());
    let mut paths: Vec<String> = names
        .map(|name| String::from_utf8_lossy(name).into_owned())
        .collect();
    paths.sort();
    paths.dedup();
    Ok(paths)
}

/// The texts among these files: what is not UTF-8, is a link, or was deleted is left out.
fn read_texts(root: &Path, paths: &[String]) -> Result<Vec<Source>> {
    let mut sources = Vec::new();
    for path in paths {
        let full = root.join(path);
        let Ok(kind) = full.symlink_metadata() else {
            continue;
        };
        if !kind.is_file() {
            continue;
        }
        let bytes = std::fs::read(&full).with_context(|| path.clone())?;
        if let Ok(text) = String::from_utf8(bytes) {
            sources.push(Source {
                path: path.clone(),
                text,
            });
        }
    }
    Ok(sources)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_names_its_line_when_it_has_one() {
        assert_eq!(
            Problem::error("a/b.rs", 7, "bad").to_string(),
            "error: a/b.rs:7: bad"
        );
        assert_eq!(
            Problem::warning("a/b.rs", 0, "long").to_string(),
            "warning: a/b.rs: long"
        );
    }
}
