//! `lower-precision` chooses what memory holds and changes nothing else: in the reference evaluation, which does not
//! round, a network computes the same bits with it and without it.

use syncbn_ir::{DType, Graph, Op, OutputKind};
use syncbn_passes::{Mode, Options, Storage, Target, inference_graph, training_graph};

use super::{Effective, for_each_seed, names_of, state_of, target};
use crate::memory::check_memory;
use crate::random_network::random_network;
use crate::support::{after, inputs, options, run, split};

const PASS: &str = "lower-precision";

/// Fails unless values that convolutions and linear layers read are bf16, and what others see is not.
fn check_types(graph: &Graph, what: &str) {
    for id in graph.nodes() {
        let reads = match graph.op(id) {
            Op::Conv(_) | Op::ConvBackwardData(_) | Op::ConvBackwardWeight(_) | Op::MatMul(_) => {
                &graph.operands(id)[..2]
            }
            _ => continue,
        };
        let of_batch = reads.iter().any(|&v| graph.ty(v).shape.has_batch());
        for &v in reads {
            let dtype = graph.ty(v).dtype;
            assert!(
                !of_batch || dtype == DType::BF16,
                "{what}: {dtype} is multiplied\n{graph}"
            );
        }
    }
    for output in &graph.outputs {
        let dtype = graph.ty(output.value).dtype;
        assert!(
            dtype != DType::BF16,
            "{what}: output {} is {dtype}\n{graph}",
            output.name
        );
    }
}

#[test]
fn precision_changes_no_value() {
    let effective = Effective::default();
    for_each_seed("precision", |seed| {
        let network = random_network(seed, DType::F32).unwrap();
        let state = state_of(&network, seed);
        for mode in [Mode::Train, Mode::Infer] {
            let options = Options {
                mode,
                target: Target {
                    channel_multiple: 1,
                    storage: Storage::Bf16,
                    ..target(seed)
                },
                ..options()
            };
            let exact = Options {
                target: Target {
                    storage: Storage::Full,
                    ..options.target
                },
                ..options.clone()
            };
            let what = format!("seed {seed}, {mode:?}");
            let pipeline = match mode {
                Mode::Train => "train",
                Mode::Infer => "infer",
            };
            let names = names_of(pipeline);
            let at = names.iter().position(|&name| name == PASS).unwrap();
            let before = after(&network, &names[..at], &options);
            if let Some(lowered) = effective.after(&before, PASS, &options, &what) {
                check_types(&lowered, &what);
            }
            let compile = |options| match mode {
                Mode::Train => training_graph(&network, options).unwrap(),
                Mode::Infer => inference_graph(&network, options, None).unwrap(),
            };
            let ((wide, _), (narrow, report)) = (compile(&exact), compile(&options));
            let ranks = split(&inputs(&wide, 4, seed), &[4]);
            let (expected, found) = (run(&wide, &ranks, &state), run(&narrow, &ranks, &state));
            for kind in [
                OutputKind::Output,
                OutputKind::Loss,
                OutputKind::Gradient,
                OutputKind::Statistic,
            ] {
                let bits = |outputs: &[syncbn_ir::RankOutputs]| -> Vec<(String, Vec<u64>)> {
                    let arrays = outputs[0].of_kind(kind);
                    let arrays = arrays
                        .map(|(name, a)| (name.to_string(), a.data.iter().map(|v| v.to_bits()).collect()));
                    arrays.collect()
                };
                assert_eq!(bits(&expected), bits(&found), "{what}, {kind:?}");
            }
            check_memory(&what, (&narrow, &report), &state, &options);
        }
        None
    });
    effective.check(&[PASS]);
}
