//! Every schedule of the CPU, in every direction, vector width and ragged shape, against the reference evaluation.

#![allow(clippy::unwrap_used)]

mod convolutions;
mod depthwise;
mod direct;
mod harness;
mod module;
mod product;
mod products;
mod random;
mod winograd;

use std::collections::BTreeSet;

use syncbn_ir::{DType, Schedule};

/// What comes transformed has cases under every schedule that reads it.
#[test]
fn transformed_weights_have_cases() {
    for cases in [winograd::winograd, winograd::polyphase] {
        let cases = cases(DType::F32, 16);
        let names = |transformed: bool| -> BTreeSet<&str> {
            let of = |case: &&Schedule| case.transformed_filter().is_some() == transformed;
            let schedules = cases.iter().map(|case| &case.schedule).filter(of);
            schedules.map(Schedule::name).collect()
        };
        assert_eq!(names(true), names(false));
    }
}

/// Every schedule has a case in each direction that it is for.
#[test]
fn every_schedule_has_cases() {
    let all = [
        direct::direct,
        direct::pointwise,
        direct::general,
        winograd::winograd,
        winograd::polyphase,
        depthwise::depthwise,
        products::products,
    ];
    let cases = all.iter().flat_map(|cases| cases(DType::F32, 16));
    let found: BTreeSet<(&str, &str)> = cases.map(|case| (case.schedule.name(), case.op.name())).collect();
    // Those of GPUs are run by the emulator, in `tests/e2e/gpu`.
    for &name in Schedule::NAMES.iter().filter(|name| **name != "implicit_gemm") {
        let operators: &[&str] = match name {
            "product" => &["matmul"],
            "general" => &["conv", "conv_backward_data", "conv_backward_weight", "matmul"],
            _ => &["conv", "conv_backward_data", "conv_backward_weight"],
        };
        for &operator in operators {
            assert!(
                found.contains(&(name, operator)),
                "schedule {name} has no case of {operator}"
            );
        }
    }
}
