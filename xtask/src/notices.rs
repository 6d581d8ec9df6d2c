//! `cargo xtask notices`: the Rust crates that are linked into executables, with their licences.
//!
//! `THIRD_PARTY.md` is generated from the resolved dependency graph, so it changes only with `Cargo.lock`.
//! Crates in the runtime reach the users of every produced executable, so their licence texts stand in full.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result};

use crate::metadata::{Metadata, Package};
use crate::tidy::Problem;

/// The generated file, at the workspace's root.
const FILE: &str = "THIRD_PARTY.md";

const HEADER: &str = "# Rust crates linked into executables

<!-- Written by `cargo xtask notices`; `cargo xtask tidy` fails where it is out of date. -->

`NOTICE` lists what else is embedded, linked or derived. Where a licence offers a choice, any of its
alternatives may be taken.
";

/// Writes the file anew.
pub fn write(root: &Path) -> Result<bool> {
    let text = generate(root)?;
    std::fs::write(root.join(FILE), text).with_context(|| format!("cannot write {FILE}"))?;
    println!("wrote {FILE}");
    Ok(true)
}

/// A problem if the file is not what `write` would write.
pub fn check(root: &Path) -> Result<Option<Problem>> {
    let wanted = generate(root)?;
    let found = std::fs::read_to_string(root.join(FILE)).unwrap_or_default();
    Ok((found != wanted)
        .then(|| Problem::error(FILE, 0, "out of date: run `cargo xtask notices` and commit it")))
}

fn generate(root: &Path) -> Result<String> {
    let metadata = Metadata::load(root, true)?;
    let linked = |name: &str| -> Result<Vec<&Package>> {
        metadata.linked_into(
            metadata
                .member(name)
                .with_context(|| format!("{name} is no member"))?,
        )
    };
    let runtime = linked("syncbn-runtime")?;
    let compiler = linked("syncbn-compile")?;

    let mut text = HEADER.to_owned();
    text += "\n## In every executable that `syncbn-compile` produces\n\n";
    text += &table(&runtime);
    text += "\n## In `syncbn-compile` itself\n\n";
    text += &table(&compiler);
    text += "\n## Licence texts of the crates in produced executables\n";
    for package in &runtime {
        write!(text, "\n### {} {}\n\n", package.name, package.version)?;
        match licence_text(package)? {
            Some(licence) => text += &indented(&licence),
            None => writeln!(
                text,
                "The package holds no licence file; it declares {}.",
                expression(package)
            )?,
        }
    }
    Ok(text)
}

fn table(packages: &[&Package]) -> String {
    let mut text = "| crate | version | licence | source |\n|---|---|---|---|\n".to_owned();
    for package in packages {
        let source = package.repository.as_deref().unwrap_or("not given");
        text += &format!(
            "| {} | {} | {} | {source} |\n",
            package.name,
            package.version,
            expression(package)
        );
    }
    text
}

fn expression(package: &Package) -> &str {
    package.license.as_deref().unwrap_or("see its licence file")
}

/// The licence file of a package: the MIT text where it offers that, as the shortest to carry along.
fn licence_text(package: &Package) -> Result<Option<String>> {
    let folder = Path::new(&package.manifest_path)
        .parent()
        .context("a manifest has no folder")?;
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    let Some(name) = choose_licence(names) else {
        return Ok(None);
    };
    Ok(Some(std::fs::read_to_string(folder.join(name))?))
}

fn choose_licence(mut names: Vec<String>) -> Option<String> {
    names.sort();
    let starts = ["LICENSE", "LICENCE", "COPYING", "UNLICENSE"];
    names.retain(|name| starts.iter().any(|start| name.to_uppercase().starts_with(start)));
    let mit = names.iter().position(|name| name.to_uppercase().contains("MIT"));
    if names.is_empty() {
        None
    } else {
        Some(names.swap_remove(mit.unwrap_or(0)))
    }
}

/// As a Markdown code block, without trailing blanks.
fn indented(text: &str) -> String {
    let lines = text.trim_matches('\n').lines().map(str::trim_end);
    lines
        .map(|line| {
            if line.is_empty() {
                "\n".to_owned()
            } else {
                format!("    {line}\n")
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mit_text_is_taken_where_there_is_one() {
        let names = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect();
        let chosen = choose_licence(names(&["src", "LICENSE-APACHE", "LICENSE-MIT", "README.md"]));
        assert_eq!(chosen.as_deref(), Some("LICENSE-MIT"));
        assert_eq!(
            choose_licence(names(&["LICENSE.md", "src"])).as_deref(),
            Some("LICENSE.md")
        );
        assert_eq!(choose_licence(names(&["src", "README.md"])), None);
    }

    #[test]
    fn a_licence_becomes_a_code_block() {
        assert_eq!(indented("\nOne  \n\nTwo\n"), "    One\n\n    Two\n");
    }

    #[test]
    fn only_normal_dependencies_are_linked_and_no_procedural_macro() {
        let mut derive = package("derive", Some("registry"));
        derive["targets"] = serde_json::json!([{"kind": ["proc-macro"]}]);
        let json = serde_json::json!({
            "packages": [
                derive, package("syntax", Some("registry")),
                package("app", None), package("used", Some("registry")), package("deep", Some("registry")),
                package("builds", Some("registry")), package("tests", Some("registry")),
            ],
            "resolve": {"nodes": [
                {"id": "app", "deps": [edge("used", None), edge("builds", Some("build")), edge("tests", Some("dev"))]},
                {"id": "used", "deps": [edge("deep", None), edge("derive", None)]},
                {"id": "derive", "deps": [edge("syntax", None)]}, {"id": "syntax", "deps": []},
                {"id": "deep", "deps": []}, {"id": "builds", "deps": []}, {"id": "tests", "deps": []},
            ]},
        });
        let metadata: Metadata = serde_json::from_value(json).unwrap();
        let linked = metadata.linked_into(metadata.member("app").unwrap()).unwrap();
        assert_eq!(
            linked.iter().map(|p| p.name.as_str()).collect::<Vec<_>>(),
            ["deep", "used"]
        );
    }

    fn package(name: &str, source: Option<&str>) -> serde_json::Value {
        serde_json::json!({"name": name, "version": "1.0.0", "id": name, "license": "MIT", "repository": null,
                           "manifest_path": "Cargo.toml", "source": source, "dependencies": []})
    }

    fn edge(name: &str, kind: Option<&str>) -> serde_json::Value {
        serde_json::json!({"pkg": name, "dep_kinds": [{"kind": kind}]})
    }
}
