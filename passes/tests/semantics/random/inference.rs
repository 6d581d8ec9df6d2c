//! Passes keep what inference computes.

use syncbn_ir::DType;
use syncbn_passes::{Mode, Options, inference_graph};

use super::expected::Expected;
use super::{Effective, for_each_seed, names_of, state_of, target, worse};
use crate::memory::check_memory;
use crate::random_network::random_network;
use crate::support::{inputs, options, run, split};

/// One pass after the other, each pass alone on the network, and the whole pipeline.
#[test]
fn every_pass_keeps_the_inference() {
    let names = names_of("infer");
    let effective = Effective::default();
    for_each_seed("inference", |seed| {
        let network = random_network(seed, DType::F64).unwrap();
        let state = state_of(&network, seed);
        let ranks = split(&inputs(&network, 3, seed), &[3]);
        let expected = Expected::of(&network, ranks.clone(), &state, 1);
        let options = Options {
            target: target(seed),
            mode: Mode::Infer,
            ..options()
        };
        let mut graph = network.clone();
        let mut worst = None;
        for &pass in &names {
            let what = format!("seed {seed}, {pass}");
            if let Some(next) = effective.after(&graph, pass, &options, &what) {
                let found = run(&next, &ranks, &state);
                worst = worse(worst, expected.check(&what, &next, &found));
                graph = next;
            }
            let what = format!("seed {seed}, {pass} alone");
            if let Some(alone) = effective.after(&network, pass, &options, &what) {
                let found = run(&alone, &ranks, &state);
                worst = worse(worst, expected.check(&what, &alone, &found));
            }
        }
        let (whole, report) = inference_graph(&network, &options, None).unwrap();
        let found = run(&whole, &ranks, &state);
        worst = worse(worst, expected.check(&format!("seed {seed}"), &whole, &found));
        check_memory(
            &format!("seed {seed}, inference"),
            (&whole, &report),
            &state,
            &options,
        );
        worst
    });
    // A network without weight standardisation has nothing for the first two; `precision.rs` has f32 networks for the
    // third.
    let idle = ["set-batch-norm-mode", "bn-to-syncbn", "lower-precision"];
    let names: Vec<&str> = names.into_iter().filter(|p| !idle.contains(p)).collect();
    effective.check(&names);
}
