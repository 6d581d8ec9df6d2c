//! Running programs.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What a program did.
pub struct Outcome {
    /// Its arguments, for messages.
    pub command: String,
    /// Exit code; None after a signal.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: String,
}

impl Outcome {
    /// Fails the test unless the program succeeded.
    #[track_caller]
    pub fn ok(self) -> Outcome {
        self.exits(0)
    }

    /// Fails the test unless the program ended with `code`.
    #[track_caller]
    pub fn exits(self, code: i32) -> Outcome {
        assert_eq!(self.code, Some(code), "{}\n{}", self.command, self.stderr);
        self
    }

    /// Fails the test unless standard error has every one of `words`, compared without case.
    #[track_caller]
    pub fn says(self, words: &[&str]) -> Outcome {
        let text = self.stderr.to_lowercase();
        for word in words {
            let found = text.contains(&word.to_lowercase());
            assert!(
                found,
                "{}\n\"{word}\" is not said in:\n{}",
                self.command, self.stderr
            );
        }
        self
    }

    /// Standard output as text.
    #[track_caller]
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).unwrap()
    }

    /// Standard output as JSON.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.stdout).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }
}

/// A command without the variables of a launcher that the tests may run under.
pub fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        let name_text = name.to_string_lossy();
        let launcher = ["SLURM_", "OMPI_", "PMI_", "PMIX_", "TORCHELASTIC_", "MASTER_"];
        if launcher.iter().any(|p| name_text.starts_with(p))
            || ["RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"].contains(&&*name_text)
        {
            command.env_remove(&name);
        }
    }
    command
}

/// Runs `program` in `folder`.
pub fn run<S: AsRef<OsStr>>(program: &Path, folder: &Path, arguments: &[S]) -> Outcome {
    outcome(command(program).current_dir(folder).args(arguments))
}

/// Runs a command.
pub fn outcome(command: &mut Command) -> Outcome {
    let program = command.get_program().to_string_lossy().into_owned();
    let text: Vec<_> = command.get_args().map(OsStr::to_string_lossy).collect();
    let text = format!("{program} {}", text.join(" "));
    let output = command.output().unwrap_or_else(|e| panic!("{program}: {e}"));
    Outcome {
        command: text,
        code: output.status.code(),
        stdout: output.stdout,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// The compiler under test.
pub fn compiler() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_syncbn-compile"))
}

/// Runs the compiler, for the CPU where the arguments name no target: most tests look at that part, and the other
/// one takes as long again.
pub fn compile<S: AsRef<OsStr>>(folder: &Path, arguments: &[S]) -> Outcome {
    let mut all: Vec<&OsStr> = arguments.iter().map(AsRef::as_ref).collect();
    if !all.iter().any(|word| *word == "--target") {
        all.extend(["--target", "cpu"].map(OsStr::new));
    }
    run(&compiler(), folder, &all)
}

/// Compiles a model for GPUs with PTX alone, whether or not there is an assembler.
pub fn compile_ptx(model: &Path, executable: &Path) {
    let mut compiler = command(&compiler());
    compiler.env("SYNCBN_PTXAS", "").arg(model);
    outcome(compiler.args(["--target", "cuda", "-o"]).arg(executable)).ok();
}

/// The names in a folder, sorted.
pub fn listing(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries
        .map(|e| e.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}
