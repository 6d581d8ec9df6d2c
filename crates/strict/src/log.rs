//! The log of a process.

use std::{fs::File, io::Write, path::PathBuf};

use crate::rule::Rule;

/// Lines go to the file one by one, so that what was done before an end without a word is there.
#[derive(Debug, Default)]
pub struct Log {
    path: Option<PathBuf>,
    rank: Option<String>,
    file: Option<File>,
    /// Violations so far.
    pub violations: u64,
}

impl Log {
    /// Files are `path` and the rank.
    pub fn new(path: Option<PathBuf>, rank: Option<String>) -> Self {
        Log {
            path,
            rank,
            ..Log::default()
        }
    }

    /// Says that a process that no launcher told a rank is rank 0, and no launcher.
    pub fn is_rank(&mut self) {
        self.rank.get_or_insert_with(|| "0".to_string());
    }

    /// Whether this process is a rank, or has written something.
    pub fn has_begun(&self) -> bool {
        self.file.is_some() || self.rank.is_some()
    }

    /// Appends a line.
    pub fn line(&mut self, text: &str) {
        let Some(path) = &self.path else { return };
        let file = match &mut self.file {
            Some(file) => file,
            none => {
                let mut name = path.clone().into_os_string();
                name.push(".");
                name.push(self.rank.as_deref().unwrap_or("launcher"));
                let Ok(file) = File::create(name) else { return };
                none.insert(file)
            }
        };
        // A log that cannot be written has no END line, which is noticed.
        let _ = file.write_all(format!("{text}\n").as_bytes());
    }

    /// Appends a violation of `rule` by a call of `function`.
    pub fn violation(&mut self, rule: Rule, function: &str, text: &str) {
        self.violations += 1;
        self.line(&format!("VIOLATION {} {function}: {text}", rule.name()));
    }
}
