//! Rules about single files: headers, lengths, names, and words that should not stand in the repository.

use super::{Problem, Source};

/// Lines of a Rust file, its unit tests not counted.
const WARN_LINES: usize = 300;
const FAIL_LINES: usize = 400;

/// Names that say nothing about what a file holds.
const VAGUE_NAMES: [&str; 4] = ["util.rs", "utils.rs", "helper.rs", "helpers.rs"];

/// Unfinished work. Written in halves so that this file passes its own check.
const UNFINISHED: [&str; 4] = [
    concat!("to", "do!"),
    concat!("unimple", "mented!"),
    concat!("FIX", "ME"),
    concat!("#[ig", "nore"),
];

/// Absolute folders of one machine.
const MACHINE_PATHS: [&str; 4] = [
    concat!("/wo", "rk/"),
    concat!("/ro", "ot/"),
    concat!("/ho", "me/"),
    concat!("/tmp/bash", "_jobs"),
];

/// Checks one file.
pub fn check(source: &Source) -> Vec<Problem> {
    let mut problems = machine_paths(source);
    let name = source.path.rsplit('/').next().unwrap_or_default();
    if name.ends_with(".rs") {
        problems.extend(header(source));
        problems.extend(length(source));
        problems.extend(unfinished(source));
        if VAGUE_NAMES.contains(&name) {
            problems.push(Problem::error(
                &source.path,
                0,
                "name the file after what it holds",
            ));
        }
    }
    problems
}

/// A Rust file starts by saying what it is.
fn header(source: &Source) -> Option<Problem> {
    let starts = source
        .text
        .lines()
        .next()
        .is_some_and(|line| line.starts_with("//! "));
    (!starts).then(|| Problem::error(&source.path, 1, "start the file with `//!` and what it is"))
}

fn length(source: &Source) -> Option<Problem> {
    if is_test_file(&source.path) {
        return None;
    }
    let lines = lines_without_tests(&source.text);
    let text = format!("{lines} lines without tests; split it by operator or duty");
    if lines > FAIL_LINES {
        Some(Problem::error(&source.path, 0, text))
    } else {
        (lines > WARN_LINES).then(|| Problem::warning(&source.path, 0, text))
    }
}

fn is_test_file(path: &str) -> bool {
    path.split('/').any(|part| part == "tests" || part == "tests.rs")
}

/// Counts up to the `#[cfg(test)] mod tests {` that ends a file.
fn lines_without_tests(text: &str) -> usize {
    let lines: Vec<&str> = text.lines().collect();
    let tests = lines.windows(2).position(|pair| {
        pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod ") && pair[1].trim_end().ends_with('{')
    });
    tests.unwrap_or(lines.len())
}

fn unfinished(source: &Source) -> Vec<Problem> {
    find(source, &UNFINISHED, |_, word| {
        format!("`{word}` is unfinished work: finish it or take it out")
    })
}

fn machine_paths(source: &Source) -> Vec<Problem> {
    find(source, &MACHINE_PATHS, |before, word| {
        // In the middle of a longer path, such as `debian/root/`, it is no absolute path.
        let part_of_path = before
            .chars()
            .next_back()
            .is_some_and(|c| c.is_alphanumeric() || "._-$}~*)/".contains(c));
        if part_of_path {
            String::new()
        } else {
            format!("`{word}` is a folder of one machine")
        }
    })
}

/// One problem for each line and word for which `text` is not empty; it gets what stands before the word.
fn find(source: &Source, words: &[&str], text: impl Fn(&str, &str) -> String) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (index, line) in source.text.lines().enumerate() {
        for word in words {
            let found = line
                .match_indices(word)
                .map(|(at, _)| text(&line[..at], word))
                .find(|t| !t.is_empty());
            problems.extend(found.map(|text| Problem::error(&source.path, index + 1, text)));
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(path: &str, text: &str) -> Vec<String> {
        let source = Source {
            path: path.to_owned(),
            text: text.to_owned(),
        };
        check(&source)
            .into_iter()
            .map(|problem| problem.to_string())
            .collect()
    }

    #[test]
    fn a_plain_file_passes() {
        assert_eq!(
            problems("src/link.rs", "//! Links.\n\nfn link() {}\n"),
            Vec::<String>::new()
        );
    }

    #[test]
    fn a_file_without_header_or_with_a_vague_name_fails() {
        assert!(
            problems("src/link.rs", "use std::fs;\n")[0].starts_with("error: src/link.rs:1: start the file")
        );
        assert!(problems("src/link.rs", "").len() == 1);
        assert!(problems("src/utils.rs", "//! Things.\n")[0].contains("name the file after what it holds"));
    }

    #[test]
    fn long_files_warn_and_longer_ones_fail() {
        let file = |lines: usize| format!("//! Long.\n{}", "\n".repeat(lines - 1));
        assert_eq!(problems("src/a.rs", &file(300)).len(), 0);
        assert!(problems("src/a.rs", &file(301))[0].starts_with("warning: src/a.rs: 301 lines"));
        assert!(problems("src/a.rs", &file(401))[0].starts_with("error: src/a.rs: 401 lines"));
    }

    #[test]
    fn tests_do_not_count_towards_the_length() {
        let code = format!("//! Long.\n{}", "\n".repeat(299));
        let tests = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", "\n".repeat(500));
        assert_eq!(problems("src/a.rs", &(code + &tests)).len(), 0);
        assert_eq!(
            problems("tests/all.rs", &format!("//! Long.\n{}", "\n".repeat(500))).len(),
            0
        );
    }

    #[test]
    fn unfinished_work_is_found_with_its_line() {
        for word in UNFINISHED {
            let found = problems("src/a.rs", &format!("//! A.\n\n    {word}\n"));
            assert!(
                found[0].starts_with("error: src/a.rs:3:") && found[0].contains(word),
                "{found:?}"
            );
        }
    }

    #[test]
    fn machine_paths_are_found_in_every_kind_of_file() {
        for word in MACHINE_PATHS {
            let found = problems("docs/a.md", &format!("see `{word}x`\n"));
            assert!(
                found[0].starts_with("error: docs/a.md:1:") && found[0].contains(word),
                "{found:?}"
            );
            assert_eq!(
                problems("docs/a.md", &format!("see target{word}x\n")),
                Vec::<String>::new()
            );
        }
    }
}
