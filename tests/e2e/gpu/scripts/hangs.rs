//! gpu-first where the driver hangs, where the deadline comes, and where it is ended.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::ended;
use super::first::{Machine, all_finished};

/// A variable by which the processes of one test are found.
const MARK: &str = "GPU_FIRST_TEST=ended";

/// How many executables of the pack run in this test.
fn running() -> usize {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let marked = entries.filter(|entry| {
        let read = |name| fs::read(entry.path().join(name)).unwrap_or_default();
        let has = |bytes: Vec<u8>, word: &str| String::from_utf8_lossy(&bytes).contains(word);
        has(read("environ"), MARK) && has(read("cmdline"), "/dev/mlp")
    });
    marked.count()
}

#[test]
fn a_driver_that_hangs_in_a_phase_costs_the_others_nothing() {
    let Some(machine) = Machine::get() else { return };
    // Most of the time is spent waiting, so that several run at once.
    let parts: [&[&str]; 6] = [
        &["ladder"],
        &["timings"],
        &["peers"],
        &["facts", "agreement"],
        &["counters", "sanitizers"],
        &["ranks"],
    ];
    std::thread::scope(|scope| {
        for phases in parts {
            scope.spawn(|| phases.iter().for_each(|phase| hang_in(machine, phase)));
        }
    });
}

fn hang_in(machine: &Machine, phase: &str) {
    let output = machine
        .first(phase)
        .args(["--process-limit", "8"])
        .env("FAKE_TORCH_HANG", if phase == "peers" { phase } else { "none" })
        .env("STRICT_HANG", "cuInit:1")
        .env("STRICT_ONLY", format!("GPU_FIRST_PHASE={phase}"))
        .output()
        .unwrap();
    let report = ended(&output, 1);
    let results = machine.results(phase);
    assert_eq!(results.states(), all_finished(), "{report}");
    for (other, _) in all_finished() {
        let (verdicts, _) = results.verdicts(other);
        assert_eq!(
            verdicts.contains(&"NOT FINISHED"),
            other == phase,
            "{other}: {report}"
        );
        assert!(!verdicts.contains(&"FAILED"), "{other}: {report}");
    }
    // Of Python nothing is asked.
    let call = if phase == "peers" { "" } else { ", in cuInit" };
    assert!(report.contains(&format!("not finished in 8 s{call}")), "{report}");
}

#[test]
fn the_deadline_comes_with_a_summary() {
    let Some(machine) = Machine::get() else { return };
    let start = Instant::now();
    let output = machine
        .first("deadline")
        .args(["--deadline", "12", "--phases", "ladder,agreement"])
        .env("STRICT_HANG", "cuInit:1")
        .output()
        .unwrap();
    let report = ended(&output, 1);
    assert!(start.elapsed() < Duration::from_secs(13), "{:?}", start.elapsed());
    let cut = [("ladder", "cut off"), ("agreement", "cut off")];
    assert_eq!(machine.results("deadline").states(), cut, "{report}");
    assert!(report.contains("| timings | not run |"), "{report}");
    assert!(report.contains("not all was run"), "{report}");
}

#[test]
fn a_signal_ends_every_process_and_leaves_a_summary_and_what_can_be_resumed() {
    let Some(machine) = Machine::get() else { return };
    let mut command = machine.first("ended");
    command
        .args(["--phases", "ladder,ranks"])
        .env("STRICT_HANG", "ncclAllReduce:2:1")
        .env("GPU_FIRST_TEST", "ended")
        .stdout(Stdio::piped())
        .process_group(0);
    let child = command.spawn().unwrap();
    let began = Instant::now();
    while running() < 3 || !fs::exists(machine.output("ended/results.jsonl")).unwrap() {
        assert!(
            began.elapsed() < Duration::from_secs(60),
            "two ranks and their launcher do not run"
        );
        sleep(Duration::from_millis(50));
    }
    let kill = Command::new("kill")
        .args(["-TERM", &child.id().to_string()])
        .status();
    assert!(kill.unwrap().success());
    let report = ended(&child.wait_with_output().unwrap(), 130);
    assert_eq!(running(), 0);
    assert_eq!(
        machine.results("ended").states(),
        [("ladder", "finished"), ("ranks", "cut off")],
        "{report}"
    );
    assert!(report.ends_with("**interrupted**\n"), "{report}");
    let again = machine
        .first("ended")
        .args(["--phases", "ladder,ranks", "--resume"])
        .arg(machine.output("ended"))
        .output();
    let report = ended(&again.unwrap(), 0);
    let results = machine.results("ended");
    assert_eq!(
        results.states(),
        [("ladder", "finished"), ("ranks", "finished")],
        "{report}"
    );
    assert_eq!(results.verdicts("ladder"), (vec!["not computed"], 3), "{report}");
}
