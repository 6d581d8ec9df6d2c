//! The child process that compiles. LLVM ends the process when it meets something it cannot select; the parent
//! turns that into an error that names the node whose kernel it was.
//!
//! The child has a file of notes: first a line for every kernel, written before LLVM starts, then a last line when
//! the child ends in order. A child that ends otherwise was ended by LLVM or by a signal.

use std::env;
use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus, Stdio};
use std::thread;

use serde::{Deserialize, Serialize};
use syncbn_mlir::KernelSource;

use crate::Error;
use crate::diagnostic::{MessageFormat, Reporter};

/// Set in the child: the path of its notes, or nothing where there is no place for them.
const VARIABLE: &str = "SYNCBN_COMPILE_WORKER";

/// One line of the notes.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Note {
    /// A kernel, its operator and the nodes that call it.
    Kernel(String, String, Vec<String>),
    /// The child has said all that it had to say.
    End,
}

/// Whether this process is the child.
pub fn is_worker() -> bool {
    env::var_os(VARIABLE).is_some()
}

/// Notes the kernels for the parent, if there is one.
pub fn note_kernels(kernels: &[KernelSource]) {
    note(kernels.iter().map(|source| {
        let KernelSource { kernel, op, nodes } = source.clone();
        Note::Kernel(kernel, op, nodes)
    }));
}

/// Notes that this process ends in order.
pub fn note_end() {
    note(std::iter::once(Note::End));
}

/// Appends to the notes. They only make messages better, so nothing fails where they cannot be written.
fn note(notes: impl Iterator<Item = Note>) {
    let Some(path) = env::var_os(VARIABLE).filter(|path| !path.is_empty()) else {
        return;
    };
    let lines = notes.filter_map(|note| serde_json::to_string(&note).ok());
    let text: String = lines.map(|line| line + "\n").collect();
    let file = OpenOptions::new().append(true).open(path);
    let _ = file.and_then(|mut file| file.write_all(text.as_bytes()));
}

fn read_notes(path: &Path) -> Vec<Note> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect()
}

/// Set in the child when the parent's standard error is a terminal; the child's is a pipe.
const COLOURS: &str = "SYNCBN_COMPILE_COLOURS";

/// Whether messages are coloured: on a terminal, unless `NO_COLOR` is set.
pub fn wants_colours() -> bool {
    let terminal = std::io::stderr().is_terminal() || env::var_os(COLOURS).is_some();
    terminal && env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
}

/// Runs this program again as the child and passes its result on.
pub fn run(reporter: Reporter) -> Result<ExitCode, Error> {
    let program = env::current_exe()
        .map_err(|e| Error::internal(format!("the compiler's own path is unknown: {e}")))?;
    let mut command = Command::new(program);
    command.args(env::args_os().skip(1));
    supervise(command, reporter)
}

/// Runs the child and passes on its messages and its result.
fn supervise(mut command: Command, reporter: Reporter) -> Result<ExitCode, Error> {
    let notes = tempfile::NamedTempFile::new().ok();
    let path = notes
        .as_ref()
        .map(|file| file.path().to_path_buf())
        .unwrap_or_default();
    if wants_colours() {
        command.env(COLOURS, "1");
    }
    let mut child = command
        .env(VARIABLE, &path)
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| Error::internal(format!("the compiling process could not be started: {e}")))?;
    let copy = child
        .stderr
        .take()
        .map(|stderr| thread::spawn(move || forward(stderr, reporter)));
    let status = child
        .wait()
        .map_err(|e| Error::internal(format!("the compiling process was lost: {e}")))?;
    let said = copy.and_then(|copy| copy.join().ok()).unwrap_or_default();
    let notes = read_notes(&path);
    let in_order = path == PathBuf::new() || notes.contains(&Note::End);
    match status.code() {
        Some(code) if in_order => Ok(ExitCode::from(code.clamp(0, 255) as u8)),
        _ => Err(describe(&said, status, &notes)),
    }
}

/// Copies the child's messages to this process's, line by line, and returns the last of them. Among JSON messages,
/// what is none (LLVM's own words) becomes one.
fn forward(from: impl Read, reporter: Reporter) -> String {
    let mut said = String::new();
    for line in BufReader::new(from).split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line);
        match reporter.format {
            MessageFormat::Json if !line.starts_with('{') => reporter.text(&line),
            MessageFormat::Json | MessageFormat::Human => {
                let _ = writeln!(std::io::stderr(), "{line}");
            }
        }
        if said.len() > 1 << 16 {
            said.clear();
        }
        said += &line;
        said.push('\n');
    }
    said
}

/// The error for a child that LLVM or a signal ended. LLVM names the function it was working on; the notes say
/// whose kernel that is.
fn describe(said: &str, status: ExitStatus, notes: &[Note]) -> Error {
    let after = |mark: &str| {
        said.rfind(mark)
            .map(|i| said[i + mark.len()..].lines().next().unwrap_or("").trim())
    };
    // LLVM's form of an error that is no abort: `in function NAME TYPE (TYPES): what is wrong`.
    let located = after(" in function ").and_then(|s| Some((s.split(' ').next()?, s.rsplit_once("): ")?.1)));
    let reason = after("LLVM ERROR:").or(located.map(|(_, reason)| reason));
    let reason = reason.map(|r| format!(": {r}")).unwrap_or_default();
    let function = after("In function:")
        .or_else(|| after("on function '@").and_then(|s| s.strip_suffix('\'')))
        .or(located.map(|(function, _)| function));
    let inside = function.map(|f| format!(" in function {f}")).unwrap_or_default();
    let mut error = Error::internal(format!("code generation ended with {status}{inside}{reason}"));
    // The CPU part and the GPU part may have a kernel of one name each.
    let mut sources = notes.iter().filter_map(|note| match note {
        Note::Kernel(kernel, op, nodes) if Some(kernel.as_str()) == function => Some((op, nodes)),
        Note::Kernel(..) | Note::End => None,
    });
    let source = sources.next().map(|(op, nodes)| {
        let mut names: Vec<String> = Vec::new();
        for node in nodes.iter().chain(sources.flat_map(|(_, nodes)| nodes)) {
            let name = format!("\"{node}\"");
            if !names.contains(&name) {
                names.push(name);
            }
        }
        (op, names)
    });
    for diagnostic in &mut error.diagnostics {
        if let Some((op, names)) = &source {
            let head = if names.len() == 1 { "node" } else { "nodes" };
            diagnostic.place = Some(format!("{head} {} ({op})", names.join(", ")));
        }
        diagnostic.help = Some(match (function, status.code()) {
            (None, None) => "the process may have run out of memory".to_string(),
            _ => "this is a fault of the compiler; another --cpu or --precision may avoid it".to_string(),
        });
    }
    error
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use syncbn_codegen::{Cpu, CpuFlag, Emit};
    use syncbn_ir::{Builder, DType};

    use super::*;
    use crate::options::Device;
    use crate::{Mode, Options, compile, optimize};

    const REPORTER: Reporter = Reporter {
        format: MessageFormat::Human,
        colours: false,
    };

    /// What the child of the test below does: it compiles for a processor whose floating-point registers are off,
    /// for which LLVM cannot generate the kernels' calls of functions that return a float.
    fn compile_what_llvm_cannot_generate() {
        let mut net = Builder::new("g", DType::F32);
        let x = net.input("x", &[4]).unwrap();
        let y = net.linear("fc1", x, 3).build().unwrap();
        let y = net.linear("fc2", y, 5).build().unwrap();
        net.output("y", y);
        let options = Options {
            mode: Mode::Infer,
            ..Options::default()
        };
        let graphs = optimize(&net.finish(), &options, Device::Cpu, &mut |_, _| ()).unwrap();
        let cpu = Cpu {
            flag: CpuFlag::Native,
            name: "x86-64".to_string(),
            features: Vec::new(),
            disabled: vec!["sse".to_string()],
        };
        compile::lower(&graphs, &cpu, &options, Emit::Object).unwrap();
        note_end();
    }

    #[test]
    fn what_llvm_cannot_generate_names_the_node() {
        if is_worker() {
            return compile_what_llvm_cannot_generate();
        }
        let mut command = Command::new(env::current_exe().unwrap());
        command.args([
            "--exact",
            "worker::tests::what_llvm_cannot_generate_names_the_node",
            "--nocapture",
        ]);
        let error = supervise(command, REPORTER).unwrap_err();
        assert_eq!(error.exit_code(), 1);
        let [diagnostic] = error.diagnostics.as_slice() else {
            panic!("{error}");
        };
        assert_eq!(
            diagnostic.place.as_deref(),
            Some("node \"fc1\" (matmul)"),
            "{error}"
        );
        for words in ["in function matmul_0", "SSE register return with SSE disabled"] {
            assert!(diagnostic.message.contains(words), "{error}");
        }
    }

    #[test]
    fn a_child_that_ends_in_order_keeps_its_exit_code() {
        let shell = |script: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", script]);
            command
        };
        let end = r#"echo '"End"' >> "$SYNCBN_COMPILE_WORKER"; exit 3"#;
        assert_eq!(supervise(shell(end), REPORTER).unwrap(), ExitCode::from(3));
        let error = supervise(shell("exit 3"), REPORTER).unwrap_err();
        assert_eq!(error.exit_code(), 1);
        let error = supervise(shell("kill -9 $$"), REPORTER).unwrap_err();
        assert!(error.to_string().contains("out of memory"), "{error}");
    }

    #[test]
    fn an_abort_names_all_nodes_of_the_kernel() {
        let said = "LLVM ERROR: Cannot select: t5: f32 = fexp t4\nIn function: unary_12\nPLEASE submit a bug report\n";
        let nodes = ["a", "b"].map(str::to_string).to_vec();
        let notes = [
            Note::Kernel("unary_1".to_string(), "unary".to_string(), Vec::new()),
            Note::Kernel("unary_12".to_string(), "unary".to_string(), nodes),
        ];
        let error = describe(said, ExitStatus::from_raw(6), &notes);
        let text = "internal error: nodes \"a\", \"b\" (unary): code generation ended with signal: 6 (SIGABRT) in \
                    function unary_12: Cannot select: t5: f32 = fexp t4\n  note: this is a fault of the compiler; \
                    another --cpu or --precision may avoid it";
        assert!(error.to_string().replace(" (core dumped)", "") == text, "{error}");
    }
}
