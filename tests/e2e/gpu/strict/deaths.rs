//! Ranks that die or fail alone: nobody waits for them, and everybody knows which one it was.

use super::run::{Run, place, run, run_each};
use super::{Subject, TRAIN, check_all};

/// Exit code of a process that dies in the stand-in.
const DEAD: i32 = 77;
/// Exit code of a process that lost another rank.
const LOST: i32 = 5;

/// Where ranks die: a call, and what it is in. `+N` counts from the beginning of the first capture.
const PLACES: [(&str, &str); 11] = [
    ("cuMemAlloc_v2:3", "its first allocations"),
    (
        "ncclCommInitRank:2,ncclCommInitRankConfig:2",
        "joining a communicator",
    ),
    ("ncclAllReduce:3", "a collective of a step"),
    ("cuStreamQuery:3", "a wait"),
    ("cuStreamBeginCapture_v2:1", "the beginning of a capture"),
    ("ncclAllReduce:+2", "a collective in a capture"),
    ("cuStreamEndCapture:1", "the end of a capture"),
    ("cuGraphLaunch:2", "a replay"),
    ("cuMemcpyDtoHAsync_v2:15", "a copy"),
    ("ncclCommDestroy:1", "the end of a communicator"),
    ("cuDevicePrimaryCtxRelease_v2:1", "the end"),
];

/// The logs of two ranks to which nothing happens. More ranks make the calls of the second one.
fn recorded(subject: &Subject) -> Run {
    let run = run(subject, &format!("{TRAIN} --ranks 2 --batch 4"), &[]);
    assert_eq!(run.problems(2), Vec::<String>::new());
    run
}

/// A call on a rank, for the stand-in.
fn on_rank(calls: &str, rank: usize, recorded: &Run) -> String {
    let log = &recorded.logs[&rank.min(1).to_string()];
    let calls = calls
        .split(',')
        .map(|call| format!("{}:{rank}", place(call, log)));
    calls.collect::<Vec<String>>().join(",")
}

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
    let recorded = recorded(&subject);
    check_all(&cases, |&(ranks, dead, (call, what))| {
        let death = on_rank(call, dead, &recorded);
        let batch = 8 / ranks;
        let arguments = format!("{TRAIN} --batch {batch}");
        let runs = run_each(&subject, ranks, &arguments, &[("STRICT_DIE", &death)]);
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
    let recorded = recorded(&subject);
    check_all(&[PLACES[2], PLACES[5], PLACES[10]], |(call, what)| {
        let death = on_rank(call, 1, &recorded);
        let run = run(&subject, &arguments, &[("STRICT_DIE", &death)]);
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
        "ncclAllReduce:+5",
        "cuEventRecord:+6",
        "ncclGroupStart:+2",
        "ncclGroupEnd:+3",
        "cuStreamEndCapture:1",
        "cuGraphInstantiateWithFlags:1",
    ] {
        cases.extend([(2, 0, failure), (2, 1, failure), (4, 3, failure)]);
    }
    let recorded = recorded(&subject);
    check_all(&cases, |&(ranks, rank, failure)| {
        let arguments = format!("{TRAIN} --ranks {ranks} --batch {}", 8 / ranks);
        let run = run(
            &subject,
            &arguments,
            &[("STRICT_FAIL", &on_rank(failure, rank, &recorded))],
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
    let death = on_rank("ncclAllReduce:+2", 1, &recorded(&subject));
    for (how, call) in [
        ("STRICT_HANG", "ncclCommAbort:1:0"),
        ("STRICT_HANG", "ncclCommAbort:2:0"),
        ("STRICT_FAIL", "ncclCommAbort:1:0"),
    ] {
        let variables = [("STRICT_DIE", death.as_str()), (how, call)];
        let runs = run_each(&subject, 2, &format!("{TRAIN} --batch 4"), &variables);
        assert_eq!(problems(&runs, 1), Vec::<String>::new(), "{how} {call}");
    }
}
