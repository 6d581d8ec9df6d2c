//! Links in Markdown files lead somewhere: to a file or folder of the repository, or out of it by address.

use std::collections::BTreeSet;

use super::{Problem, Source};

/// Checks the links of one file. `paths` are all files of the repository.
pub fn check(source: &Source, paths: &[String]) -> Vec<Problem> {
    if !source.path.ends_with(".md") {
        return Vec::new();
    }
    let known: BTreeSet<&str> = paths.iter().flat_map(|path| with_folders(path)).collect();
    let folder = source.path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let mut problems = Vec::new();
    for (index, line) in source.text.lines().enumerate() {
        for target in targets(line) {
            let path = target.split('#').next().unwrap_or_default();
            if path.is_empty() || path.contains("://") || path.starts_with("mailto:") {
                continue;
            }
            if !resolve(folder, path).is_some_and(|path| known.contains(path.as_str())) {
                problems.push(Problem::error(
                    &source.path,
                    index + 1,
                    format!("no file `{path}` to link to"),
                ));
            }
        }
    }
    problems
}

/// The file itself and every folder above it.
fn with_folders(path: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(path), |path| path.rsplit_once('/').map(|(folder, _)| folder))
}

/// What stands in the round brackets of each `[text](target)`.
fn targets(line: &str) -> Vec<&str> {
    line.split("](")
        .skip(1)
        .filter_map(|rest| rest.split_once(')'))
        .map(|(target, _)| target)
        .collect()
}

/// The path below the root that `path` means in `folder`; none if it leaves the repository.
fn resolve(folder: &str, path: &str) -> Option<String> {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            name => parts.push(name),
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(path: &str, text: &str) -> Vec<String> {
        let paths = ["README.md", "docs/ir.md", "examples/README.md"].map(str::to_owned);
        let source = Source {
            path: path.to_owned(),
            text: text.to_owned(),
        };
        check(&source, &paths)
            .into_iter()
            .map(|problem| problem.to_string())
            .collect()
    }

    #[test]
    fn links_to_files_folders_addresses_and_headings_pass() {
        let text = "[a](docs/ir.md#ops), [b](examples/), [c](https://x.org/y), [d](#here)\n";
        assert_eq!(problems("README.md", text), Vec::<String>::new());
        assert_eq!(
            problems("docs/ir.md", "[up](../README.md)\n"),
            Vec::<String>::new()
        );
    }

    #[test]
    fn a_link_to_nothing_fails_with_its_line() {
        assert_eq!(
            problems("docs/ir.md", "\n[a](ir.md) [b](gone.md)\n"),
            ["error: docs/ir.md:2: no file `gone.md` to link to"]
        );
        assert_eq!(problems("README.md", "[a](../outside.md)\n").len(), 1);
    }
}
