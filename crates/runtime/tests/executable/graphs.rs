//! Steps as captured graphs: the same bits as without, whatever the ranks, the batches and the streams.

use std::fs;

use serde_json::Value;

use crate::{fake_model::gpu::WAITS, harness::Bench, processes::Ranks};

crate::tests![
    replays_and_streams_change_no_bit,
    a_capture_that_fails_on_one_rank_is_given_up_by_all,
    bench_says_how_many_steps_were_replayed,
    inference_is_replayed_on_ranks_with_different_batches,
];

/// Which steps of a log were replayed.
fn replayed(bench: &Bench, log: &str) -> Vec<bool> {
    let lines = bench.log(log);
    lines
        .iter()
        .filter_map(|line| line.get("replayed").and_then(Value::as_bool))
        .collect()
}

fn losses(bench: &Bench, log: &str) -> Vec<Value> {
    let lines = bench.log(log);
    let loss = |line: &Value| line.get("loss").or(line.get("val_loss")).cloned();
    lines.iter().filter_map(loss).collect()
}

fn replays_and_streams_change_no_bit() {
    let bench = Bench::new("gpu f64 sync");
    // Three steps an epoch: 8, 8 and 5 samples, so that the short one meets both sets of buffers.
    bench.data("d.npz", 21);
    bench.data("v.npz", 19);
    let optimizers = [
        "--lr 0.1 --momentum 0.9 --weight-decay 1e-4 --schedule cosine",
        "--optimizer adamw --lr 0.01 --schedule cosine",
    ];
    let splits = ["--batch 8", "--ranks 2 --batch 4", "--rank-batches 5,3,0"];
    for (optimizer, split) in optimizers.iter().flat_map(|one| splits.map(|split| (one, split))) {
        let run = |name: &str, flags: &str| {
            let run = bench.ok(&format!(
                "train --data d.npz --val v.npz {optimizer} {split} --epochs 7 {flags} --save {name}.w --log {name}.log \
                 --dump-gradients {name}.g --dump-outputs {name}.o --dump-statistics {name}.s"
            ));
            assert_eq!(run.stderr, "", "{split} {flags}");
        };
        run("plain", "--graphs off --overlap off");
        assert!(replayed(&bench, "plain.log").iter().all(|replayed| !replayed));
        for flags in ["", "--graphs off", "--overlap off"] {
            run("other", flags);
            for kind in ["w", "g", "o", "s"] {
                let bytes = |name: &str| fs::read(bench.path(&format!("{name}.{kind}"))).unwrap();
                assert!(bytes("other") == bytes("plain"), "{split} {flags} {kind}");
            }
            assert_eq!(
                losses(&bench, "other.log"),
                losses(&bench, "plain.log"),
                "{split} {flags}"
            );
            let steps = replayed(&bench, "other.log");
            assert_eq!(steps.len(), 21);
            // Each validation begins again with the first set of buffers, so the full batch is first met in steps 1 and
            // 2, and the short one in step 3.
            let expected = |step: usize| !flags.contains("--graphs off") && step >= 3;
            assert!(
                (0..21).all(|step| steps[step] == expected(step)),
                "{split} {flags} {steps:?}"
            );
        }
    }
}

fn a_capture_that_fails_on_one_rank_is_given_up_by_all() {
    let bench = Bench::new("gpu f64 sync");
    bench.data("d.npz", 22);
    let flags = "train --data d.npz --batch 4 --epochs 4";
    bench.ok(&format!("{flags} --ranks 3 --save expected"));
    let mut ranks = Ranks::start(&bench, 3, &format!("{flags} --save w --log l"), |_, command| {
        command.env(WAITS, "1");
    });
    for (rank, (code, text)) in ranks.wait(usize::MAX).into_iter().enumerate() {
        assert_eq!(code, Some(0), "{text}");
        let note = "note: the training step runs without CUDA graphs: capturing failed on rank 1: a wait of the host";
        match rank {
            0 => assert!(text.starts_with(note) && text.lines().count() == 1, "{text}"),
            _ => assert_eq!(text, ""),
        }
    }
    assert!(replayed(&bench, "l").iter().all(|replayed| !replayed));
    assert!(fs::read(bench.path("w")).unwrap() == fs::read(bench.path("expected")).unwrap());
}

fn bench_says_how_many_steps_were_replayed() {
    let bench = Bench::new("both f32 sync");
    let figures = |flags: &str| -> Value {
        serde_json::from_str(&bench.ok(&format!("bench --json --batch 4 {flags}")).stdout).unwrap()
    };
    let emulated = "--device cuda-emulated --ranks 2";
    // A set of buffers is met in the first two steps, captured and replayed in the next two.
    for (flags, expected) in [
        ("--steps 6 --warmup 2", 6),
        ("--steps 6 --warmup 0", 4),
        ("--steps 6 --warmup 2 --graphs off", 0),
        ("--mode infer --steps 6 --warmup 1", 6),
    ] {
        let figures = figures(&format!("{emulated} {flags}"));
        assert_eq!(figures["replayed_steps"], expected, "{flags}");
        let collectives = if flags.contains("infer") { 0 } else { 3 };
        assert_eq!(figures["collectives_per_step"], collectives, "{flags}");
    }
    assert!(figures("--device cpu --steps 2").get("replayed_steps").is_none());
    let text = bench.ok(&format!("bench {emulated} --steps 5 --warmup 2")).stdout;
    assert!(
        text.contains("3 collectives a step, 5 steps replayed as graphs"),
        "{text}"
    );
}

fn inference_is_replayed_on_ranks_with_different_batches() {
    let bench = Bench::new("both f64 sync");
    bench.data("d.npz", 67);
    bench.ok("train --data d.npz --device cpu --save w");
    let infer = |flags: &str| {
        bench.ok(&format!("infer --data d.npz --weights w {flags} -o o.npz"));
        bench.array("o.npz", "logits")
    };
    let expected = infer("--device cpu");
    for ranks in [1, 2, 3] {
        let flags = format!("--device cuda-emulated --ranks {ranks}");
        assert_eq!(infer(&flags), expected);
        assert_eq!(infer(&format!("{flags} --graphs off")), expected);
    }
}
