//! Runs against the stand-in, and its logs.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::Subject;
use crate::support::run::{command, compiler};

/// How long a run may take: what waits for a dead rank ends in 10 s.
const LIMIT: Duration = Duration::from_secs(40);

/// Variables and values.
pub type Variables<'a> = &'a [(&'a str, &'a str)];

/// The log of a rank.
pub struct Log {
    lines: Vec<String>,
}

impl Log {
    /// Lines that begin with a word, without it.
    pub fn of(&self, word: &str) -> Vec<&str> {
        let lines = self.lines.iter();
        lines
            .filter_map(|line| line.strip_prefix(word)?.strip_prefix(' '))
            .collect()
    }

    /// How often each function was called, if the process ended in order.
    pub fn calls(&self) -> Option<BTreeMap<String, u64>> {
        self.of("END").last().map(|line| counts(line))
    }

    /// How often each function was called when the first capture began.
    pub fn before_capture(&self) -> BTreeMap<String, u64> {
        counts(self.of("CAPTURE").first().expect("nothing is captured"))
    }
}

fn counts(line: &str) -> BTreeMap<String, u64> {
    let words = line.split(' ').filter_map(|word| word.split_once('='));
    words
        .map(|(name, count)| (name.to_string(), count.parse().unwrap()))
        .collect()
}

/// `FUNCTION:N` as it is on a rank whose log is `log`: `+N` counts from the beginning of the first capture.
pub fn place(text: &str, log: &Log) -> String {
    let Some((function, number)) = text.split_once(":+") else {
        return text.to_string();
    };
    let before = log.before_capture().get(function).copied().unwrap_or(0);
    format!("{function}:{}", before + number.parse::<u64>().unwrap())
}

/// What a run did.
pub struct Run {
    /// The exit code, None after a signal. [`Run::ended`] tells whether it ended at all.
    pub code: Option<i32>,
    /// Whether it ended within [`LIMIT`].
    pub ended: bool,
    /// Standard error.
    pub said: String,
    /// Standard output.
    pub output: String,
    /// Logs, by rank.
    pub logs: BTreeMap<String, Log>,
}

impl Run {
    /// What broke a rule, on any rank.
    pub fn violations(&self) -> Vec<String> {
        let logs = self.logs.iter();
        logs.flat_map(|(rank, log)| {
            log.of("VIOLATION")
                .into_iter()
                .map(move |v| format!("rank {rank}: {v}"))
        })
        .collect()
    }

    /// What is wrong with a run that must succeed on `ranks` ranks and break no rule.
    pub fn problems(&self, ranks: usize) -> Vec<String> {
        let mut problems = self.violations();
        if !self.ended {
            problems.push("it did not end".to_string());
        } else if self.code != Some(0) {
            problems.push(format!("it ended with {:?}: {}", self.code, self.said));
        }
        if self.logs.len() != ranks {
            problems.push(format!("{} ranks have a log", self.logs.len()));
        }
        let first = self.logs.values().next().map(|log| log.of("COLLECTIVE"));
        for (rank, log) in &self.logs {
            if log.calls().is_none() {
                problems.push(format!("the log of rank {rank} has no end"));
            }
            if Some(log.of("COLLECTIVE")) != first {
                problems.push(format!("rank {rank} has other collectives than rank 0"));
            }
        }
        problems
    }
}

/// The stand-in.
pub fn library() -> PathBuf {
    let path = compiler().parent().unwrap().join("deps/libsyncbn_strict.so");
    assert!(path.exists(), "{} was not built", path.display());
    path
}

/// A folder in which processes run.
struct Place {
    folder: TempDir,
}

impl Place {
    fn new() -> Place {
        let folder = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(library(), folder.path().join("libcuda.so.1")).unwrap();
        Place { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Starts a process whose output goes to files named by `name`. `DATA` in the arguments is the subject's data.
    fn start(&self, subject: &Subject, name: &str, arguments: &str, variables: Variables) -> Child {
        let data = subject.data();
        let words = arguments.split_whitespace();
        let words = words.map(|word| {
            if word == "DATA" {
                data.as_os_str()
            } else {
                word.as_ref()
            }
        });
        let mut command: Command = command(&subject.executable);
        command
            .args(words)
            .current_dir(self.folder.path())
            .env("LD_LIBRARY_PATH", self.folder.path())
            .env("SYNCBN_NCCL_LIBRARY", library())
            .env("NCCL_MULTI_RANK_GPU_ENABLE", "1")
            .env("STRICT_LOG", self.path("strict"))
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(File::create(self.path(&format!("{name}.out"))).unwrap())
            .stderr(File::create(self.path(&format!("{name}.err"))).unwrap());
        command.spawn().unwrap()
    }

    /// Waits for a process.
    fn finish(&self, name: &str, mut child: Child, start: Instant) -> Run {
        let status = loop {
            match child.try_wait().unwrap() {
                Some(status) => break Some(status),
                None if start.elapsed() > LIMIT => break None,
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        };
        if status.is_none() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        let read = |end: &str| fs::read_to_string(self.path(&format!("{name}.{end}"))).unwrap();
        Run {
            code: status.and_then(|status| status.code()),
            ended: status.is_some(),
            said: read("err"),
            output: read("out"),
            logs: logs(self.folder.path()),
        }
    }
}

fn logs(folder: &Path) -> BTreeMap<String, Log> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let named = entries.filter_map(|path| {
        let rank = path.file_name()?.to_str()?.strip_prefix("strict.")?.to_string();
        let text = fs::read_to_string(&path).unwrap();
        let lines = text.lines().map(str::to_string).collect();
        Some((rank, Log { lines }))
    });
    named.collect()
}

/// Runs the executable, which starts its ranks itself.
pub fn run(subject: &Subject, arguments: &str, variables: Variables) -> Run {
    let place = Place::new();
    let start = Instant::now();
    let child = place.start(subject, "run", arguments, variables);
    place.finish("run", child, start)
}

/// Starts each of `ranks` ranks as torchrun does, so that each has an exit code of its own.
pub fn run_each(subject: &Subject, ranks: usize, arguments: &str, variables: Variables) -> Vec<Run> {
    let place = Place::new();
    let start = Instant::now();
    // The ranks' own port is the one after the launcher's.
    let port = TcpListener::bind(("127.0.0.1", 0))
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let (size, port) = (ranks.to_string(), port.wrapping_sub(1).to_string());
    let children: Vec<(String, Child)> = (0..ranks)
        .map(|rank| {
            let rank = rank.to_string();
            let launcher = [
                ("RANK", rank.as_str()),
                ("LOCAL_RANK", &rank),
                ("WORLD_SIZE", &size),
                ("LOCAL_WORLD_SIZE", &size),
                ("MASTER_ADDR", "127.0.0.1"),
                ("MASTER_PORT", &port),
            ];
            let all: Vec<(&str, &str)> = launcher.iter().chain(variables).copied().collect();
            let child = place.start(subject, &rank, arguments, &all);
            (rank, child)
        })
        .collect();
    let runs = children.into_iter();
    runs.map(|(rank, child)| place.finish(&rank, child, start))
        .collect()
}
