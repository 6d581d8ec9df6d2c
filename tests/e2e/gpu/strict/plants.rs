//! Faults that are planted into a run's calls are found, each by its own rule.

use super::run::{Run, run};
use super::{Subject, TRAIN, check_all};
use syncbn_strict::PLANTS;

/// What is wrong unless the first rule that was broken on any rank is `rule`.
fn problems(name: &str, rule: &str, run: &Run) -> Vec<String> {
    let mut problems = Vec::new();
    if !run.ended || run.code.is_none() {
        problems.push(format!("{name}: it did not end by itself: {}", run.said));
    }
    let first = |violations: Vec<&str>| {
        violations
            .first()
            .map(|v| v.split(' ').next().unwrap().to_string())
    };
    let found: Vec<String> = run
        .logs
        .values()
        .filter_map(|log| first(log.of("VIOLATION")))
        .collect();
    if found.is_empty() || found.iter().any(|found| found != rule) {
        problems.push(format!(
            "{name}: found {found:?}, not {rule}: {:?}",
            run.violations()
        ));
    }
    problems
}

#[test]
fn every_planted_fault_is_found_by_its_rule() {
    let (small, wide) = (Subject::new("syncbnnet_small"), Subject::wide());
    check_all(&PLANTS, |&(name, rule)| {
        let subject = if name == "shared-memory" { &wide } else { &small };
        let mut variables = vec![("STRICT_PLANT", name)];
        if name == "collective-order" {
            // Ranks that are wrong alike fit together.
            variables.push(("STRICT_ONLY", "SYNCBN_RANK=1"));
        }
        let run = run(subject, &format!("{TRAIN} --ranks 2 --batch 4"), &variables);
        problems(name, rule, &run)
    });
}

#[test]
fn a_setting_that_says_nothing_is_a_violation() {
    let subject = Subject::new("mlp_bn1d");
    let run = run(
        &subject,
        &format!("{TRAIN} --batch 4"),
        &[("STRICT_FAIL", "cuNothing:1")],
    );
    assert_eq!(
        problems("a malformed setting", "setting", &run),
        Vec::<String>::new()
    );
}
