//! Ranks that a launcher's variables make of processes, started by the test itself.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    net::TcpListener,
    process::{Child, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use crate::harness::{ACT_AS, Bench};

crate::tests![
    launchers_variables_make_a_run,
    other_launchers_make_a_run,
    ranks_that_do_not_fit_are_refused,
];

/// How long ranks may take to end.
pub const LIMIT: Duration = Duration::from_secs(10);

/// Ranks started one by one, as torchrun does.
pub struct Ranks(pub Vec<Child>);

impl Ranks {
    /// Starts `ranks` of `bench`'s model; `adjust` may change a rank's command.
    pub fn start(
        bench: &Bench,
        ranks: usize,
        flags: &str,
        adjust: impl Fn(usize, &mut std::process::Command),
    ) -> Self {
        // The control connection takes the port after the launcher's.
        let port = free_port();
        let start = |rank: usize| {
            let mut command = bench.command(flags);
            command
                .env("RANK", rank.to_string())
                .env("WORLD_SIZE", ranks.to_string())
                .env("LOCAL_RANK", rank.to_string())
                .env("MASTER_ADDR", "127.0.0.1")
                .env("MASTER_PORT", (port - 1).to_string())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped());
            adjust(rank, &mut command);
            command.spawn().unwrap()
        };
        Ranks((0..ranks).map(start).collect())
    }

    /// Waits for rank 0's first line of progress.
    pub fn wait_for_first_step(&mut self) {
        let mut line = String::new();
        let mut output = BufReader::with_capacity(1, self.0[0].stdout.as_mut().unwrap());
        output.read_line(&mut line).unwrap();
        assert!(line.starts_with("step 1/"), "{line}");
    }

    /// Waits until all but `except` have ended; returns code and standard error of each.
    pub fn wait(&mut self, except: usize) -> Vec<(Option<i32>, String)> {
        let start = Instant::now();
        let mut ended = Vec::new();
        for (rank, child) in self.0.iter_mut().enumerate() {
            if rank == except {
                ended.push((None, String::new()));
                continue;
            }
            let status = loop {
                if let Some(status) = child.try_wait().unwrap() {
                    break status;
                }
                assert!(start.elapsed() < LIMIT, "rank {rank} goes on");
                thread::sleep(Duration::from_millis(2));
            };
            let mut text = String::new();
            child.stderr.as_mut().unwrap().read_to_string(&mut text).unwrap();
            ended.push((status.code(), text));
        }
        ended
    }

    /// Waits until all but `dead` have ended with code 5, naming it.
    pub fn expect_death(&mut self, dead: usize) {
        for (rank, (code, text)) in self.wait(dead).into_iter().enumerate() {
            if rank == dead {
                continue;
            }
            assert_eq!(code, Some(5), "rank {rank} after {dead}: {text}");
            let named = format!("error: rank {dead} died (last step ");
            assert!(text.contains(&named), "rank {rank} after {dead}: {text}");
            assert_eq!(text.matches("error: ").count(), 1, "{text}");
        }
    }
}

impl Drop for Ranks {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A port that is free now, and that the system gives to nobody who does not name it.
fn free_port() -> u16 {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    loop {
        let next = std::process::id() * 512 + TAKEN.fetch_add(1, Ordering::Relaxed);
        let port = 12_000 + (next % 20_000) as u16;
        if TcpListener::bind(("0.0.0.0", port)).is_ok() {
            return port;
        }
    }
}

fn launchers_variables_make_a_run() {
    let bench = Bench::new("gpu f64 sync");
    bench.data("d.npz", 22);
    let flags = "train --data d.npz --batch 4 --epochs 2 --save w";
    bench.ok("train --data d.npz --batch 4 --epochs 2 --ranks 2 --save expected");
    let mut ranks = Ranks::start(&bench, 2, flags, |_, _| ());
    for (code, text) in ranks.wait(usize::MAX) {
        assert_eq!((code, text.as_str()), (Some(0), ""));
    }
    assert!(fs::read(bench.path("w")).unwrap() == fs::read(bench.path("expected")).unwrap());
    // The number of ranks must not contradict the launcher.
    let mut ranks = Ranks::start(&bench, 2, &format!("{flags} --ranks 3"), |_, _| ());
    for (code, text) in ranks.wait(usize::MAX) {
        assert_eq!(code, Some(2));
        assert!(
            text.contains("asks for 3 ranks") && text.contains("WORLD_SIZE=2"),
            "{text}"
        );
    }
    let mut ranks = Ranks::start(
        &bench,
        2,
        &format!("{flags} --ranks 1 --no-launcher-env"),
        |_, _| (),
    );
    for (code, text) in ranks.wait(usize::MAX) {
        assert_eq!((code, text.as_str()), (Some(0), ""));
    }
}

/// The variables of srun and of two MPI's, on one machine.
fn other_launchers_make_a_run() {
    let bench = Bench::new("gpu f64 sync");
    bench.data("d.npz", 22);
    let flags = "train --data d.npz --batch 4";
    bench.ok(&format!("{flags} --ranks 2 --save expected"));
    let expected = fs::read(bench.path("expected")).unwrap();
    for (launcher, of_rank, of_all) in [
        (
            "srun",
            &["SLURM_PROCID", "SLURM_LOCALID"][..],
            &[
                ("SLURM_NTASKS", "2"),
                ("SLURM_STEP_ID", "0"),
                ("SLURM_STEP_NODELIST", "127.0.0.1"),
            ][..],
        ),
        (
            "mpirun",
            &["OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_RANK"],
            &[("OMPI_COMM_WORLD_SIZE", "2"), ("OMPI_COMM_WORLD_LOCAL_SIZE", "2")],
        ),
        (
            "mpiexec",
            &["PMI_RANK", "MPI_LOCALRANKID"],
            &[("PMI_SIZE", "2"), ("MPI_LOCALNRANKS", "2")],
        ),
    ] {
        let port = free_port().to_string();
        let adjust = |rank: usize, command: &mut std::process::Command| {
            for name in ["RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"] {
                command.env_remove(name);
            }
            for name in of_rank {
                command.env(name, rank.to_string());
            }
            command
                .envs(of_all.iter().copied())
                .env("SYNCBN_MASTER_PORT", &port);
        };
        let mut ranks = Ranks::start(&bench, 2, &format!("{flags} --save {launcher}"), adjust);
        for (code, text) in ranks.wait(usize::MAX) {
            assert_eq!((code, text.as_str()), (Some(0), ""), "{launcher}");
        }
        assert!(fs::read(bench.path(launcher)).unwrap() == expected, "{launcher}");
    }
}

fn ranks_that_do_not_fit_are_refused() {
    let bench = Bench::new("gpu f64 sync");
    bench.data("d.npz", 21);
    let flags = "train --data d.npz --batch 4";
    let other = |rank: usize, command: &mut std::process::Command| {
        if rank == 1 {
            command.env(ACT_AS, "other f64 sync");
        }
    };
    let mut ranks = Ranks::start(&bench, 2, flags, other);
    for (code, text) in ranks.wait(usize::MAX) {
        assert_eq!(code, Some(2), "{text}");
        assert!(text.contains("rank 1 runs another executable"), "{text}");
        assert!(text.contains("schedule of collectives"), "{text}");
    }
    let twice = |rank: usize, command: &mut std::process::Command| {
        command.env("RANK", rank.min(1).to_string());
    };
    let mut ranks = Ranks::start(&bench, 3, flags, twice);
    for (code, text) in ranks.wait(usize::MAX) {
        assert_eq!(code, Some(2), "{text}");
        assert!(text.contains("two processes with rank 1"), "{text}");
    }
}
