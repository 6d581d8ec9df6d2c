//! Every function of the driver and of NCCL fails at its first call and at one in the middle: the run ends with an error that
//! names the call and the rank, or goes on where that is right, and says why.

use std::collections::BTreeMap;

use super::run::{Run, run};
use super::{Subject, TRAIN, check_all};
use syncbn_strict::FUNCTIONS;

/// Their failure does not matter: they end something that the end of the process ends too.
const ENDING: [&str; 10] = [
    "cuDevicePrimaryCtxRelease_v2",
    "cuMemFree_v2",
    "cuMemFreeHost",
    "cuStreamDestroy_v2",
    "cuEventDestroy_v2",
    "cuModuleUnload",
    "cuGraphDestroy",
    "cuGraphExecDestroy",
    "ncclCommDestroy",
    "ncclCommAbort",
];
/// They make a graph, without which a run goes on.
const CAPTURING: [&str; 3] = [
    "cuStreamBeginCapture_v2",
    "cuStreamEndCapture",
    "cuGraphInstantiateWithFlags",
];
/// They are called until something is done, so that nobody knows how often: only early calls are sure to come.
const POLLED: [&str; 2] = ["cuStreamQuery", "ncclCommGetAsyncError"];
/// Called only after an error, or by no executable.
const OTHERWISE: [&str; 4] = [
    "cuGetErrorName",
    "cuGetErrorString",
    "ncclCommAbort",
    "ncclCommFinalize",
];
/// Either joins a communicator.
const JOINING: [&str; 2] = ["ncclCommInitRank", "ncclCommInitRankConfig"];

struct Case {
    arguments: String,
    /// The rank that fails, if there are several.
    rank: Option<&'static str>,
    function: String,
    number: u64,
}

/// Cases of all functions that `run` called on `rank`.
fn cases(arguments: &str, rank: Option<&'static str>, run: &Run) -> Vec<Case> {
    assert_eq!(
        run.problems(if rank.is_some() { 2 } else { 1 }),
        Vec::<String>::new()
    );
    let calls = run.logs[rank.unwrap_or("0")].calls().unwrap();
    let mut cases = Vec::new();
    for function in FUNCTIONS {
        let Some(&count) = calls.get(function.name) else {
            continue;
        };
        let middle = if POLLED.contains(&function.name) {
            2
        } else {
            count / 2 + 1
        };
        for number in [1, middle.min(count)] {
            let known = cases
                .last()
                .is_some_and(|last: &Case| last.function == function.name && last.number == number);
            // Before ranks join, the others wait for 8 s; one function stands for this.
            let early = rank.is_some()
                && number == 1
                && ["cuDriverGetVersion", "cuDeviceGetCount"].contains(&function.name);
            if !known && !early {
                cases.push(Case {
                    arguments: arguments.to_string(),
                    rank,
                    function: function.name.to_string(),
                    number,
                });
            }
        }
    }
    cases
}

/// What is wrong with a run whose call failed.
fn problems(case: &Case, run: &Run) -> Vec<String> {
    let mut problems = Vec::new();
    let mut check = |holds: bool, text: &str| {
        if !holds {
            problems.push(text.to_string());
        }
    };
    // A process that fails before it has a GPU does not know that it is a rank.
    let failures: Vec<&str> = run.logs.values().flat_map(|log| log.of("FAILURE")).collect();
    let captured = failures.first().is_some_and(|line| line.ends_with(" captured"));
    check(failures.len() == 1, "the call did not come");
    check(run.ended, "it did not end");
    check(run.code.is_some(), "it was ended by a signal");
    let name = case.function.trim_end_matches("_v2");
    if ENDING.contains(&case.function.as_str()) {
        check(run.code == Some(0), "it failed");
        check(!run.said.contains("error"), "it says an error");
    } else {
        check(run.said.contains(name), "the call is not named");
        let rank = case.rank.map(|rank| format!("rank {rank}"));
        check(
            rank.is_none_or(|rank| run.said.contains(&rank)),
            "the rank is not named",
        );
        let goes_on = captured || CAPTURING.contains(&case.function.as_str());
        if goes_on {
            check(run.code == Some(0), "it does not go on without graphs");
            check(
                run.said.contains("without CUDA graphs"),
                "it does not say that it goes on without graphs",
            );
            check(run.violations().is_empty(), "rules are broken");
        } else {
            check(
                run.code == Some(4),
                "it does not end with an error of the environment",
            );
            // Pinned memory is given back while copies are under way: the driver waits for those.
            let pinned = |violation: &String| violation.contains("freed-in-use cuMemFreeHost");
            let clean = case.rank.is_some() || run.violations().iter().all(pinned);
            check(clean, "rules are broken on the way out");
        }
    }
    let description = format!(
        "{} {} of rank {:?} in {}: {:?}\n{}",
        case.function, case.number, case.rank, case.arguments, run.code, run.said
    );
    problems
        .iter()
        .map(|problem| format!("{problem}: {description}{:?}", run.violations()))
        .collect()
}

fn check_cases(subject: &Subject, cases: &[Case]) {
    check_all(cases, |case| {
        let place = format!("{}:{}", case.function, case.number);
        let place = case.rank.map_or(place.clone(), |rank| format!("{place}:{rank}"));
        let run = run(subject, &case.arguments, &[("STRICT_FAIL", &place)]);
        problems(case, &run)
    });
}

#[test]
fn a_failed_call_of_the_only_rank_is_named() {
    let subject = Subject::wide();
    let arguments = format!("{TRAIN} --batch 4");
    check_cases(
        &subject,
        &cases(&arguments, None, &run(&subject, &arguments, &[])),
    );
}

#[test]
fn a_failed_call_of_one_of_two_ranks_is_named_with_its_rank() {
    let subject = Subject::new("mlp_bn1d");
    let arguments = format!("{TRAIN} --ranks 2 --batch 4");
    let recorded = run(&subject, &arguments, &[]);
    let mut all = cases(&arguments, Some("0"), &recorded);
    all.extend(cases(&arguments, Some("1"), &recorded));
    check_cases(&subject, &all);
}

#[test]
fn every_function_is_called_by_these_runs_or_known_not_to_be() {
    let (wide, mlp) = (Subject::wide(), Subject::new("mlp_bn1d"));
    let alone = run(&wide, &format!("{TRAIN} --batch 4"), &[]);
    let two = run(&mlp, &format!("{TRAIN} --ranks 2 --batch 4"), &[]);
    let mut called = BTreeMap::new();
    for log in alone.logs.values().chain(two.logs.values()) {
        called.extend(log.calls().unwrap());
    }
    assert!(JOINING.iter().any(|name| called.contains_key(*name)));
    for function in FUNCTIONS {
        if JOINING.contains(&function.name) {
            continue;
        }
        let known_not_to_be = OTHERWISE.contains(&function.name);
        assert_eq!(
            called.contains_key(function.name),
            !known_not_to_be,
            "{}",
            function.name
        );
    }
}

#[test]
fn an_error_that_cannot_be_explained_is_still_named() {
    let subject = Subject::new("mlp_bn1d");
    for explanation in ["cuGetErrorName:1", "cuGetErrorString:1"] {
        let failures = format!("cuMemAlloc_v2:1,{explanation}");
        let run = run(
            &subject,
            &format!("{TRAIN} --batch 4"),
            &[("STRICT_FAIL", &failures)],
        );
        assert_eq!(run.code, Some(4), "{}", run.said);
        assert!(run.said.contains("error: cuMemAlloc: "), "{}", run.said);
    }
}

#[test]
fn an_allocation_that_fails_late_leaves_nothing_behind() {
    let subject = Subject::new("mlp_bn1d");
    for place in [
        "cuMemAlloc_v2:9",
        "cuMemHostAlloc:4",
        "cuStreamCreate:3",
        "cuEventCreate:5",
        "cuCtxSetCurrent:1",
    ] {
        let run = run(&subject, &format!("{TRAIN} --batch 4"), &[("STRICT_FAIL", place)]);
        assert_eq!(run.code, Some(4), "{place}: {}", run.said);
        assert_eq!(run.violations(), Vec::<String>::new(), "{place}");
    }
}
