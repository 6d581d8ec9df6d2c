//! The child process that compiles. LLVM ends the process when it meets something it cannot select; the parent
//! turns that into an error that names the kernel.

use std::env;
use std::io::{IsTerminal, Write};
use std::process::{Command, ExitCode, Stdio};
use std::sync::{Arc, Mutex};

/// Set in the child.
const VARIABLE: &str = "SYNCBN_COMPILE_WORKER";

/// Whether this process is the child.
pub fn is_worker() -> bool {
    env::var_os(VARIABLE).is_some()
}

/// Set in the child when the parent's standard error is a terminal; the child's is a pipe.
const COLOURS: &str = "SYNCBN_COMPILE_COLOURS";

/// Whether messages are coloured: on a terminal, unless `NO_COLOR` is set.
pub fn wants_colours() -> bool {
    let terminal = std::io::stderr().is_terminal() || env::var_os(COLOURS).is_some();
    terminal && env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
}

/// Runs this program again as the child and passes its result on.
pub fn run() -> Result<ExitCode, String> {
    let program = env::current_exe().map_err(|e| format!("the compiler's own path is unknown: {e}"))?;
    let mut command = Command::new(program);
    if wants_colours() {
        command.env(COLOURS, "1");
    }
    let mut child = command
        .args(env::args_os().skip(1))
        .env(VARIABLE, "1")
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| format!("the compiling process could not be started: {e}"))?;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let copy = child.stderr.take().map(|stderr| {
        let seen = Arc::clone(&seen);
        std::thread::spawn(move || forward(stderr, &seen))
    });
    let status = child
        .wait()
        .map_err(|e| format!("the compiling process was lost: {e}"))?;
    if let Some(copy) = copy {
        let _ = copy.join();
    }
    if let Some(code) = status.code() {
        return Ok(ExitCode::from(code.clamp(0, 255) as u8));
    }
    let text = seen
        .lock()
        .map(|s| String::from_utf8_lossy(&s).into_owned())
        .unwrap_or_default();
    Err(describe(&text, &status.to_string()))
}

/// Copies the child's messages to this process's, keeping the last ones.
fn forward(mut from: impl std::io::Read, seen: &Mutex<Vec<u8>>) {
    let mut buffer = [0; 4096];
    while let Ok(n @ 1..) = from.read(&mut buffer) {
        let _ = std::io::stderr().write_all(&buffer[..n]);
        if let Ok(mut seen) = seen.lock() {
            seen.extend_from_slice(&buffer[..n]);
            let excess = seen.len().saturating_sub(1 << 16);
            seen.drain(..excess);
        }
    }
}

/// The message for a child that ended by a signal. LLVM names the function it was working on, which is the
/// kernel: the operator and its number.
fn describe(text: &str, status: &str) -> String {
    let after = |mark: &str| {
        text.rfind(mark)
            .map(|i| text[i + mark.len()..].lines().next().unwrap_or("").trim())
    };
    let reason = after("LLVM ERROR:").map(|r| format!(": {r}")).unwrap_or_default();
    let kernel = after("In function:").or_else(|| after("on function '@").and_then(|s| s.strip_suffix('\'')));
    let place = kernel.map(|k| format!(" in kernel {k}")).unwrap_or_default();
    format!("code generation ended with {status}{place}{reason}")
}

#[cfg(test)]
mod tests {
    use super::describe;

    #[test]
    fn an_abort_names_the_kernel() {
        let text = "LLVM ERROR: Cannot select: t5: f32 = fexp t4\nIn function: unary_12\nPLEASE submit a bug report\n";
        let message = describe(text, "signal: 6 (SIGABRT)");
        assert_eq!(
            message,
            "code generation ended with signal: 6 (SIGABRT) in kernel unary_12: Cannot select: t5: f32 = fexp t4"
        );
        assert_eq!(
            describe("", "signal: 9 (SIGKILL)"),
            "code generation ended with signal: 9 (SIGKILL)"
        );
    }
}
