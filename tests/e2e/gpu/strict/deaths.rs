//! Ranks that die or fail alone: nobody waits for them, and everybody knows which one it was.

use super::run::{Run, run, run_each};
use super::{Subject, TRAIN, check_all};

/// Exit code of a process that dies in the stand-in.
const DEAD: i32 = 77;
/// Exit code of a process that lost another rank.
const LOST: i32 = 5;

/// Where ranks die: a call, and what it is in.
const PLACES: [(&str, &str); 11] = [
    ("cuMemAlloc_v2:3", "its first allocations"),
    (
        "ncclCommInitRank:2,ncclCommInitRankConfig:2",
        "joining a communicator",
    ),
    ("ncclAllReduce:3", "a collective of a step"),
    ("cuStreamQuery:3", "a wait"),
    ("cuStreamBeginCapture_v2:1", "the beginning of a capture"),
    ("ncclAllReduce:8", "a collective in a capture"),
    ("cuStreamEndCapture:1", "the end of a capture"),
    ("cuGraphLaunch:2", "a replay"),
    ("cuMemcpyDtoHAsync_v2:15", "a copy"),
    ("ncclCommDestroy:1", "the end of a communicator"),
    ("cuDevicePrimaryCtxRelease_v2:1", "the end"),
];

fn problems(runs: &[Run], dead: usize) -> Vec<String> {
    let mut problems = Vec::new();
    for (rank, run) in runs.iter().enumerate() {
        let mut check = |holds: bool, text: &str| {
            if !holds {
                problems.push(format!("rank {rank} {text}: {:?} {}", run.code, run.said));
            }
        };
        check(run.ended, "did not end");
        if rank == dead {
            check(run.code == Some(DEAD), "did not die");
        } else {
            check(
                run.code == Some(LOST),
                "does not say by its code that a rank died",
            );
            check(
                run.said.contains(&format!("rank {dead} died")),
                "does not name the dead rank",
            );
        }
    }
    problems
}

#[test]
fn the_others_end_and_name_a_rank_that_dies() {
    let subject = Subject::new("mlp_bn1d");
    let mut cases = Vec::new();
    for place in PLACES {
        cases.extend([(2, 0, place), (2, 1, place)]);
    }
    for place in [PLACES[2], PLACES[5], PLACES[10]] {
        cases.extend([(4, 0, place), (4, 2, place)]);
    }
    check_all(&cases, |&(ranks, dead, (place, what))| {
        let death: Vec<String> = place.split(',').map(|call| format!("{call}:{dead}")).collect();
        let batch = 8 / ranks;
        let arguments = format!("{TRAIN} --batch {batch}");
        let runs = run_each(&subject, ranks, &arguments, &[("STRICT_DIE", &death.join(","))]);
        let found = problems(&runs, dead);
        found
            .into_iter()
            .map(|problem| format!("{ranks} ranks, {what}: {problem}"))
            .collect()
    });
}

#[test]
fn the_launcher_names_a_rank_that_dies() {
    let subject = Subject::new("mlp_bn1d");
    let arguments = format!("{TRAIN} --ranks 2 --batch 4");
    check_all(&[PLACES[2], PLACES[5], PLACES[10]], |(place, what)| {
        let run = run(&subject, &arguments, &[("STRICT_DIE", &format!("{place}:1"))]);
        let mut problems = Vec::new();
        if run.code != Some(DEAD) || !run.said.contains("rank 1 ended with exit code 77") {
            problems.push(format!("{what}: {:?} {}", run.code, run.said));
        }
        problems
    });
}

/// All ranks capture or none does, and all collectives go on to fit together.
#[test]
fn all_ranks_go_on_without_graphs_when_one_cannot_capture() {
    let subject = Subject::new("syncbnnet_small");
    let mut cases = Vec::new();
    for failure in [
        "cuStreamBeginCapture_v2:1",
        "ncclAllReduce:25",
        "cuEventRecord:40",
        "ncclGroupStart:7",
        "ncclGroupEnd:8",
        "cuStreamEndCapture:1",
        "cuGraphInstantiateWithFlags:1",
    ] {
        cases.extend([(2, 0, failure), (2, 1, failure), (4, 3, failure)]);
    }
    check_all(&cases, |&(ranks, rank, failure)| {
        let arguments = format!("{TRAIN} --ranks {ranks} --batch {}", 8 / ranks);
        let run = run(
            &subject,
            &arguments,
            &[("STRICT_FAIL", &format!("{failure}:{rank}"))],
        );
        let mut problems = run.problems(ranks);
        let words = format!("the training step runs without CUDA graphs: capturing failed on rank {rank}: ");
        if run.said.matches(&words).count() != 1 {
            problems.push(format!("\"{words}\" is not said once: {}", run.said));
        }
        let name = failure.split(':').next().unwrap().trim_end_matches("_v2");
        if !run.said.contains(name) {
            problems.push(format!("the call is not named: {}", run.said));
        }
        problems
            .iter()
            .map(|problem| format!("{failure} on rank {rank} of {ranks}: {problem}"))
            .collect()
    });
}

/// Aborting is tried for a while; the process ends without it.
#[test]
fn communicators_that_cannot_be_aborted_are_left() {
    let subject = Subject::new("mlp_bn1d");
    for (how, call) in [
        ("STRICT_HANG", "ncclCommAbort:1:0"),
        ("STRICT_HANG", "ncclCommAbort:2:0"),
        ("STRICT_FAIL", "ncclCommAbort:1:0"),
    ] {
        let variables = [("STRICT_DIE", "ncclAllReduce:8:1"), (how, call)];
        let runs = run_each(&subject, 2, &format!("{TRAIN} --batch 4"), &variables);
        assert_eq!(problems(&runs, 1), Vec::<String>::new(), "{how} {call}");
    }
}
