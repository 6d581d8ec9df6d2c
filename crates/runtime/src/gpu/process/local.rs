//! The launcher of several ranks on this machine: it starts this executable once for each, forwards signals
//! and output, and watches.

use std::{
    io::{BufRead, BufReader, Read},
    net::{Ipv4Addr, TcpListener},
    os::{
        fd::OwnedFd,
        unix::process::{CommandExt, ExitStatusExt, parent_id},
    },
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use signal_hook::{consts::SIGINT, consts::SIGTERM, flag};

use super::variables;
use crate::{
    error::{Error, Kind, Result},
    report,
};

/// How long the other ranks may take to end by themselves after the first one that failed.
const PATIENCE: Duration = Duration::from_secs(8);
/// How long they may take to end when they are told to.
const LAST_PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(10);

/// A rank's process.
struct Process {
    child: Child,
    status: Option<ExitStatus>,
    /// Threads that forward its output.
    output: Vec<JoinHandle<()>>,
}

/// Starts this executable with the same arguments as each of `ranks` ranks, waits for all, and returns the exit
/// code: that of the first rank that failed by an error of its own, or else that of a rank that died.
/// `interrupted` is set by a signal.
pub fn launch(ranks: usize, interrupted: &AtomicBool) -> Result<i32> {
    let failed = |cause| Error::environment(format!("cannot start {ranks} ranks: {cause}"));
    let terminated = Arc::new(AtomicBool::new(false));
    flag::register(SIGTERM, Arc::clone(&terminated)).map_err(failed)?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?.to_string();
    let mut listener = Some(Stdio::from(OwnedFd::from(listener)));
    let mut processes = Processes(Vec::with_capacity(ranks));
    for rank in 0..ranks {
        let stdin = listener.take().unwrap_or_else(Stdio::null);
        let process = start(rank, ranks, &address, stdin).map_err(failed)?;
        processes.0.push(process);
    }
    processes.wait(interrupted, &terminated)
}

fn start(rank: usize, ranks: usize, address: &str, stdin: Stdio) -> std::io::Result<Process> {
    let output = || {
        if rank == 0 {
            Stdio::inherit()
        } else {
            Stdio::piped()
        }
    };
    let mut command = Command::new(std::env::current_exe()?);
    command
        .args(std::env::args_os().skip(1))
        .env(variables::RANK, rank.to_string())
        .env(variables::RANKS, ranks.to_string())
        .env(variables::ADDRESS, address)
        .env(variables::LAUNCHER, std::process::id().to_string())
        .stdin(stdin)
        .stdout(output())
        .stderr(output())
        // A terminal's signals come to the launcher, which forwards them once.
        .process_group(0);
    let mut child = command.spawn()?;
    let mut output = Vec::new();
    output.extend(child.stdout.take().map(|stream| forward(rank, stream)));
    output.extend(child.stderr.take().map(|stream| forward(rank, stream)));
    Ok(Process {
        child,
        status: None,
        output,
    })
}

/// Copies lines to standard error, with the rank before each.
fn forward(rank: usize, stream: impl Read + Send + 'static) -> JoinHandle<()> {
    thread::spawn(move || {
        let mut input = BufReader::new(stream);
        let mut line = Vec::new();
        while input.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
            let text = String::from_utf8_lossy(&line);
            report::complaint(&format!("[rank {rank}] {}", text.trim_end_matches(['\n', '\r'])));
            line.clear();
        }
    })
}

/// The ranks' processes; those that still run when this is dropped are killed.
struct Processes(Vec<Process>);

impl Processes {
    fn wait(&mut self, interrupted: &AtomicBool, terminated: &AtomicBool) -> Result<i32> {
        let (mut forwarded, mut stopped) = (false, false);
        // When, on which rank, with which exit code.
        let mut first_failure = None::<(Instant, usize, i32)>;
        // Exit codes in the order in which the processes ended.
        let mut codes = Vec::new();
        while codes.len() < self.0.len() {
            if interrupted.load(Ordering::Relaxed) && !forwarded {
                let terminated = terminated.load(Ordering::Relaxed);
                self.signal(if terminated { SIGTERM } else { SIGINT });
                forwarded = true;
            }
            for (rank, process) in self.0.iter_mut().enumerate() {
                if process.status.is_some() {
                    continue;
                }
                let status = process.child.try_wait();
                let status = status.map_err(|cause| Error::internal(format!("cannot wait: {cause}")))?;
                let Some(status) = status else { continue };
                process.status = Some(status);
                if let Some(signal) = status.signal() {
                    report::complaint(&format!("error: rank {rank} was ended by {}", name(signal)));
                }
                let code = status.code().unwrap_or(Kind::RankDied.exit_code());
                if code != 0 && !is_own(code) {
                    report::complaint(&format!("error: rank {rank} ended with exit code {code}"));
                }
                if code != 0 {
                    first_failure.get_or_insert_with(|| (Instant::now(), rank, code));
                }
                // What ends because it was told to is not the cause.
                codes.push(if stopped { 0 } else { code });
            }
            let late = |patience| first_failure.filter(|(at, ..)| at.elapsed() > patience);
            if let Some((_, rank, code)) = late(PATIENCE).filter(|_| !stopped) {
                let seconds = PATIENCE.as_secs();
                report::complaint(&format!(
                    "error: rank {rank} ended with exit code {code}, and others did not within {seconds} s: ending them"
                ));
                self.signal(SIGTERM);
                stopped = true;
            }
            if late(LAST_PATIENCE).is_some() {
                self.kill();
            }
            thread::sleep(PAUSE);
        }
        for thread in self.0.iter_mut().flat_map(|process| process.output.drain(..)) {
            let _ = thread.join();
        }
        let died = Kind::RankDied.exit_code();
        let failures = || codes.iter().copied().filter(|code| *code != 0);
        let own = failures().find(|code| *code != died);
        Ok(own.or_else(|| failures().next()).unwrap_or(0))
    }

    fn running(&mut self) -> impl Iterator<Item = &mut Child> {
        let running = self.0.iter_mut().filter(|process| process.status.is_none());
        running.map(|process| &mut process.child)
    }

    fn signal(&mut self, signal: i32) {
        for child in self.running() {
            // SAFETY: sends a signal to a child that was not waited for, so that its number is still its own.
            unsafe { libc::kill(child.id() as i32, signal) };
        }
    }

    fn kill(&mut self) {
        for child in self.running() {
            let _ = child.kill();
        }
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Whether a process that ends with this code has said why.
fn is_own(code: i32) -> bool {
    use Kind::{Environment, Internal, Interrupted, RankDied, Unsupported, User};
    let kinds = [Internal, User, Unsupported, Environment, RankDied, Interrupted];
    kinds.iter().any(|kind| kind.exit_code() == code)
}

fn name(signal: i32) -> String {
    match signal_hook::low_level::signal_name(signal) {
        Some(name) => format!("{name} (signal {signal})"),
        None => format!("signal {signal}"),
    }
}

/// Ends this process when its launcher `launcher` ends.
pub fn end_with(launcher: u32) -> Result<()> {
    // SAFETY: asks for a signal to this process at its parent's end; touches no memory.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) };
    // Too late if it has ended already.
    if parent_id() == launcher {
        return Ok(());
    }
    Err(Error::new(Kind::Interrupted, "the launcher has ended"))
}
