//! Ranks that die: the others end within 10 s, say which rank it was, and exit with code 5.

use std::{
    fs,
    io::{BufRead, BufReader},
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::{
    fake_model::HANG,
    harness::{Bench, DIES},
    processes::{LIMIT, Ranks},
};

crate::tests![
    a_hundred_killed_ranks_are_named,
    a_stopped_rank_is_named,
    a_rank_that_hangs_and_is_killed_is_named,
    the_launcher_names_the_signal,
    a_rank_killed_before_it_joined_ends_the_run,
    ranks_end_with_their_launcher,
];

/// Random numbers that differ from run to run; a failing test prints what it drew.
fn random(bound: u64) -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(bound) % bound
}

const ENDLESS: &str = "train --data d.npz --device cuda-emulated --batch 2 --steps 1000000000";

fn a_hundred_killed_ranks_are_named() {
    let run = || {
        let bench = Bench::new("gpu f64 sync");
        bench.data("d.npz", 64);
        for _ in 0..25 {
            let mut ranks = Ranks::start(&bench, 4, ENDLESS, |_, _| ());
            ranks.wait_for_first_step();
            let dead = random(4) as usize;
            thread::sleep(Duration::from_millis(random(60)));
            ranks.0[dead].kill().unwrap();
            ranks.expect_death(dead);
        }
    };
    thread::scope(|scope| {
        for worker in (0..4).map(|_| scope.spawn(run)).collect::<Vec<_>>() {
            worker.join().unwrap();
        }
    });
}

fn a_stopped_rank_is_named() {
    let bench = Bench::new("gpu f64 sync");
    bench.data("d.npz", 64);
    for dead in [2, 0] {
        let mut ranks = Ranks::start(&bench, 3, ENDLESS, |_, _| ());
        ranks.wait_for_first_step();
        // SAFETY: the process is a child of this test and has not been waited for.
        unsafe { libc::kill(ranks.0[dead].id() as i32, libc::SIGSTOP) };
        ranks.expect_death(dead);
    }
}

fn a_rank_that_hangs_and_is_killed_is_named() {
    let bench = Bench::new("gpu f64 sync");
    // Rank 1 takes the second sample of the second step.
    let mut x: Vec<f64> = (0..24).map(|i| f64::from(i * 7 % 5)).collect();
    x[9] = HANG;
    bench.arrays("d.npz", &[("x", &[8, 3], &x)], Some(&[0, 1, 2, 3, 0, 1, 2, 3]));
    let flags = "train --data d.npz --device cuda-emulated --batch 1 --no-shuffle --epochs 2";
    let mut ranks = Ranks::start(&bench, 2, flags, |_, _| ());
    ranks.wait_for_first_step();
    thread::sleep(Duration::from_millis(300));
    assert!(ranks.0[0].try_wait().unwrap().is_none());
    ranks.0[1].kill().unwrap();
    let ended = ranks.wait(1);
    assert_eq!(ended[0].0, Some(5));
    assert!(ended[0].1.contains("rank 1 died (last step 1)"), "{}", ended[0].1);
}

/// The processes that `parent` started.
fn children(parent: u32) -> Vec<i32> {
    let text = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap();
    text.split_whitespace().map(|id| id.parse().unwrap()).collect()
}

/// Starts three ranks by the local launcher; returns it and the ranks' processes after the first step.
fn launch(bench: &Bench) -> (Child, Vec<i32>) {
    let mut command = bench.command(&format!("{ENDLESS} --ranks 3"));
    let mut launcher = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut output = BufReader::with_capacity(1, launcher.stdout.as_mut().unwrap());
    output.read_line(&mut line).unwrap();
    assert!(line.starts_with("step 1/"), "{line}");
    let ranks = children(launcher.id());
    assert_eq!(ranks.len(), 3);
    (launcher, ranks)
}

fn the_launcher_names_the_signal() {
    let bench = Bench::new("gpu f64 sync");
    bench.data("d.npz", 64);
    let (launcher, ranks) = launch(&bench);
    let start = Instant::now();
    // SAFETY: the process was started by the launcher, which waits for it only after its end.
    unsafe { libc::kill(ranks[1], libc::SIGKILL) };
    let output = launcher.wait_with_output().unwrap();
    assert!(start.elapsed() < LIMIT);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(5), "{text}");
    for part in [
        "error: rank 1 was ended by SIGKILL (signal 9)\n",
        "\nerror: rank 1 died",
        "[rank 2] error: rank 1 died",
    ] {
        assert!(format!("\n{text}").contains(part), "no {part:?} in {text}");
    }
}

fn a_rank_killed_before_it_joined_ends_the_run() {
    let bench = Bench::new("gpu f64 sync");
    bench.data("d.npz", 64);
    let mut command = bench.command(&format!("{ENDLESS} --ranks 3"));
    command.env(DIES, "2");
    let start = Instant::now();
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(5), "{text}");
    assert!(text.contains("error: rank 2 was ended by SIGKILL"), "{text}");
    assert!(start.elapsed() < Duration::from_secs(20));
}

fn ranks_end_with_their_launcher() {
    let bench = Bench::new("gpu f64 sync");
    bench.data("d.npz", 64);
    let (mut launcher, ranks) = launch(&bench);
    launcher.kill().unwrap();
    launcher.wait().unwrap();
    let start = Instant::now();
    while ranks.iter().any(|id| runs(*id)) {
        assert!(start.elapsed() < LIMIT);
        thread::sleep(Duration::from_millis(10));
    }
}

/// Whether a process runs: it exists and is not a zombie that nobody waits for.
fn runs(process: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let state = status
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .trim_start()
        .chars()
        .next();
    state.is_some_and(|state| !matches!(state, 'Z' | 'X'))
}
