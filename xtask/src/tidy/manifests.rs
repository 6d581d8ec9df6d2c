//! Every dependency version stands once, in the root `Cargo.toml`; members say `name.workspace = true`.

use super::{Problem, Source};

/// Checks one file, if it is a manifest.
pub fn check(source: &Source) -> Vec<Problem> {
    if source.path != "Cargo.toml" && !source.path.ends_with("/Cargo.toml") {
        return Vec::new();
    }
    let mut problems = Vec::new();
    let mut table = String::new();
    for (index, line) in source.text.lines().enumerate() {
        let line = line.trim();
        if let Some(header) = line.strip_prefix('[') {
            table = header.trim_end_matches(']').to_owned();
            if is_single_dependency(&table) {
                let text = format!("write `[{table}]` as one line `name.workspace = true`");
                problems.push(Problem::error(&source.path, index + 1, text));
            }
        } else if is_member_table(&table) && is_entry(line) && !inherits(line) {
            let name = line.split(['.', '=', ' ']).next().unwrap_or_default();
            let text =
                format!("`{name}` needs `workspace = true`: its version belongs to the root Cargo.toml");
            problems.push(Problem::error(&source.path, index + 1, text));
        }
    }
    problems
}

/// A table of dependencies other than the workspace's own.
fn is_member_table(table: &str) -> bool {
    table != "workspace.dependencies"
        && table
            .rsplit('.')
            .next()
            .is_some_and(|t| t.ends_with("dependencies"))
}

/// `[dependencies.name]`, whose version would stand on a line of its own.
fn is_single_dependency(table: &str) -> bool {
    let parts: Vec<&str> = table.split('.').collect();
    parts.first() != Some(&"workspace") && parts.iter().rev().skip(1).any(|t| t.ends_with("dependencies"))
}

fn is_entry(line: &str) -> bool {
    !line.is_empty() && !line.starts_with('#') && line.contains('=')
}

fn inherits(line: &str) -> bool {
    let compact: String = line.chars().filter(|c| !c.is_whitespace()).collect();
    compact.contains(".workspace=true")
        || compact.contains("workspace=true,")
        || compact.contains("workspace=true}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(path: &str, text: &str) -> Vec<usize> {
        let source = Source {
            path: path.to_owned(),
            text: text.to_owned(),
        };
        check(&source).into_iter().map(|problem| problem.line).collect()
    }

    #[test]
    fn inherited_versions_pass() {
        let text = "[package]\nversion = \"1\"\n[dependencies]\na.workspace = true\nb = { workspace = true, \
                    features = [\"x\"] }\n# c = \"1\"\n[features]\nd = []\n";
        assert_eq!(lines("crates/ir/Cargo.toml", text), Vec::<usize>::new());
    }

    #[test]
    fn a_version_in_a_member_is_an_error_in_every_kind_of_table() {
        for table in [
            "dependencies",
            "dev-dependencies",
            "build-dependencies",
            "target.'cfg(unix)'.dependencies",
        ] {
            let text = format!("[{table}]\na.workspace = true\nb = \"1\"\nc = {{ path = \"../c\" }}\n");
            assert_eq!(lines("crates/ir/Cargo.toml", &text), [3, 4], "{table}");
        }
        assert_eq!(lines("Cargo.toml", "[dependencies.a]\nversion = \"1\"\n"), [1]);
    }

    #[test]
    fn the_workspace_table_holds_the_versions() {
        assert_eq!(
            lines(
                "Cargo.toml",
                "[workspace.dependencies]\na = \"1\"\n[dependencies]\na = \"1\"\n"
            ),
            [4]
        );
    }
}
