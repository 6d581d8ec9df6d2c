//! Whole runs break no rule, and all ranks have the same collectives.

use super::run::{Run, run};
use super::{Subject, TRAIN, check_all};

/// Arguments, number of ranks, further variables.
type Case = (String, usize, &'static [(&'static str, &'static str)]);

/// One GPU for each rank of up to four.
const FOUR: &[(&str, &str)] = &[("STRICT_GPUS", "4"), ("NCCL_MULTI_RANK_GPU_ENABLE", "0")];

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (ranks, share) in [
        (1, "--ranks 1 --batch 4"),
        (2, "--ranks 2 --batch 4"),
        (2, "--rank-batches 5,3"),
        (3, "--rank-batches 3,0,2"),
        (4, "--ranks 4 --batch 2"),
    ] {
        for flags in ["", "--overlap off", "--graphs off", "--overlap off --graphs off"] {
            // Where each rank has a GPU, and where all share one.
            let variables = if ranks == 2 { &[] } else { FOUR };
            cases.push((format!("{TRAIN} {share} {flags}"), ranks, variables));
        }
    }
    for ranks in [1, 2, 4] {
        let infer = format!("infer --device cuda --data DATA -o o.npz --ranks {ranks}");
        cases.push((infer, ranks, FOUR));
        for mode in ["train", "infer"] {
            let bench = "bench --device cuda --json --steps 4 --warmup 3 --batch 2";
            cases.push((format!("{bench} --mode {mode} --ranks {ranks}"), ranks, FOUR));
        }
    }
    cases.push((
        format!("{TRAIN} --ranks 2 --batch 4 --optimizer adamw --dump-gradients g.safetensors"),
        2,
        FOUR,
    ));
    cases
}

/// What a run must have done beside breaking no rule.
fn more(arguments: &str, ranks: usize, run: &Run) -> Vec<String> {
    let mut problems = Vec::new();
    let mut check = |holds: bool, text: String| {
        if !holds {
            problems.push(text);
        }
    };
    let trains = !arguments.contains("infer");
    for (rank, log) in &run.logs {
        let collectives = log.of("COLLECTIVE").len();
        let expected = ranks > 1 && trains;
        check(
            (collectives > 0) == expected,
            format!("rank {rank} has {collectives} collectives"),
        );
        let graphs = log.of("GRAPH").len();
        // A single batch of inference is not captured.
        check(
            (graphs > 0) != (arguments.contains("--graphs off") || arguments.starts_with("infer")),
            format!("rank {rank} captured {graphs} graphs"),
        );
        let communicators = log.of("COMMUNICATOR").len();
        let expected = match (expected, arguments.contains("--overlap off")) {
            (false, _) => 0,
            (true, true) => 1,
            (true, false) => 2,
        };
        check(
            communicators == expected,
            format!("rank {rank} joined {communicators} communicators"),
        );
    }
    if arguments.contains("--json") {
        check(
            run.output.contains("\"replayed_steps\":4") || run.output.contains("\"replayed_steps\": 4"),
            format!("not all steps were replayed: {}", run.output),
        );
    }
    problems
}

fn clean(subject: &Subject) {
    check_all(&cases(), |(arguments, ranks, variables)| {
        let run = run(subject, arguments, variables);
        let mut problems = run.problems(*ranks);
        problems.extend(more(arguments, *ranks, &run));
        let name = subject.network.name;
        problems
            .iter()
            .map(|problem| format!("{name} {arguments}: {problem}"))
            .collect()
    });
}

#[test]
fn mlp_bn1d_breaks_no_rule() {
    clean(&Subject::new("mlp_bn1d"));
}

#[test]
fn mlp_bn1d_as_ptx_breaks_no_rule() {
    clean(&Subject::ptx("mlp_bn1d"));
}

#[test]
fn syncbnnet_small_breaks_no_rule() {
    clean(&Subject::new("syncbnnet_small"));
}

#[test]
fn resnet18_narrow_breaks_no_rule() {
    clean(&Subject::new("resnet18_narrow"));
}

#[test]
fn a_wide_network_breaks_no_rule_and_asks_for_shared_memory() {
    let subject = Subject::wide();
    let run = run(&subject, &format!("{TRAIN} --batch 8"), &[]);
    assert_eq!(run.problems(1), Vec::<String>::new());
    let calls = run.logs["0"].calls().unwrap();
    assert!(calls.contains_key("cuFuncSetAttribute"), "{calls:?}");
}

#[test]
fn two_ranks_on_one_gpu_are_refused_by_nccl_unless_it_was_told() {
    let subject = Subject::new("mlp_bn1d");
    let arguments = format!("{TRAIN} --ranks 2 --batch 4");
    let refused = run(&subject, &arguments, &[("NCCL_MULTI_RANK_GPU_ENABLE", "0")]);
    assert_eq!(refused.code, Some(4), "{}", refused.said);
    assert!(
        refused.said.contains("NCCL_MULTI_RANK_GPU_ENABLE"),
        "{}",
        refused.said
    );
}
