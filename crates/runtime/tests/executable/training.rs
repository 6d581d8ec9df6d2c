//! `train`: numbers, splits, logs, dumps and saves.

use crate::harness::{Bench, assert_close};

crate::tests![
    one_step_is_sgd_on_the_dumped_gradients,
    every_split_gives_the_same,
    two_runs_have_the_same_bits,
    f32_saves_f32,
    groups_and_local_statistics,
    log_lines,
    a_pipe_gets_plain_lines,
    training_learns_and_continues,
    an_interrupt_finishes_the_step_and_saves,
];

const FLAGS: &str = "--no-shuffle --lr 0.1 --momentum 0.9 --weight-decay 1e-4";

fn one_step_is_sgd_on_the_dumped_gradients() {
    let bench = Bench::new("f64 sync");
    bench.data("d.npz", 8);
    bench.ok(&format!(
        "train --data d.npz {FLAGS} --save w1 --dump-gradients g"
    ));
    bench.ok(&format!("train --data d.npz {FLAGS} --lr 0 --save w0").replace("--lr 0.1", ""));
    let (before, after, gradients) = (bench.tensors("w0"), bench.tensors("w1"), bench.tensors("g"));
    let names: Vec<_> = gradients.keys().map(String::as_str).collect();
    assert_eq!(names, ["bn.bias", "bn.weight", "fc.bias", "fc.weight", "unused"]);
    assert_eq!(gradients["unused"], [0.0, 0.0]);
    for (name, gradient) in &gradients {
        let step = |(p, g): (&f64, &f64)| p - 0.1 * (g + 1e-4 * p);
        let expected: Vec<f64> = before[name].iter().zip(gradient).map(step).collect();
        assert_close(&after[name], &expected, 1e-15, name);
    }
    assert_eq!(after["constant"], [4.0]);
    assert_eq!(after["fc.bias"].len(), 4);
    assert_eq!(before["fc.bias"], [0.125, 0.0, 0.0, 0.0]);
}

fn every_split_gives_the_same() {
    let bench = Bench::new("f64 sync");
    bench.data("d.npz", 21);
    let run = |name: &str, split: &str| {
        let dumps = format!("--save {name}.w --dump-gradients {name}.g --dump-outputs {name}.npz");
        bench.ok(&format!(
            "train --data d.npz {FLAGS} --epochs 3 {split} {dumps} --dump-statistics {name}.s"
        ));
    };
    run("one", "--batch 8");
    let (weights, gradients) = (bench.tensors("one.w"), bench.tensors("one.g"));
    let (shape, outputs) = bench.array("one.npz", "logits");
    assert_eq!(shape, [5, 4]);
    for (index, split) in [
        "--ranks 2 --batch 4",
        "--ranks 8 --batch 1",
        "--rank-batches 5,3",
        "--rank-batches 5,3,0",
    ]
    .iter()
    .enumerate()
    {
        let name = format!("many{index}");
        run(&name, split);
        for (tensor, found) in bench.tensors(&format!("{name}.w")) {
            assert_close(&found, &weights[&tensor], 1e-12, &format!("{split} {tensor}"));
        }
        for (tensor, found) in bench.tensors(&format!("{name}.g")) {
            assert_close(
                &found,
                &gradients[&tensor],
                1e-12,
                &format!("{split} gradient {tensor}"),
            );
        }
        assert_close(
            &bench.array(&format!("{name}.npz"), "logits").1,
            &outputs,
            1e-12,
            split,
        );
        let statistics = bench.tensors(&format!("{name}.s"));
        for (tensor, found) in &statistics {
            let (_, tensor) = tensor.split_once('/').unwrap();
            let first = &statistics[&format!("rank0/{tensor}")];
            assert!(
                found.iter().zip(first).all(|(a, b)| a.to_bits() == b.to_bits()),
                "{split} {tensor}"
            );
        }
        assert!(
            statistics.contains_key("rank1/bn/inv_std") && statistics.contains_key("rank1/bn.running_var")
        );
    }
}

fn two_runs_have_the_same_bits() {
    let bench = Bench::new("f32 sync");
    bench.data("d.npz", 21);
    let run = |name: &str, seed: u64| {
        bench.ok(&format!(
            "train --data d.npz --ranks 3 --batch 2 --epochs 2 --seed {seed} --save {name}"
        ));
        std::fs::read(bench.path(name)).unwrap()
    };
    let first = run("a", 1);
    assert_eq!(first, run("b", 1));
    assert_ne!(first, run("c", 2));
}

fn f32_saves_f32() {
    let bench = Bench::new("f32 sync");
    bench.data("d.npz", 16);
    bench.ok("train --data d.npz --save w");
    let bytes = std::fs::read(bench.path("w")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(file.len(), 8);
    for (name, view) in file.tensors() {
        assert_eq!(view.dtype(), safetensors::Dtype::F32, "{name}");
    }
}

fn groups_and_local_statistics() {
    let bench = Bench::new("f64 group=2");
    bench.data("d.npz", 16);
    bench.ok(&format!(
        "train --data d.npz {FLAGS} --ranks 4 --batch 4 --dump-statistics s --save w"
    ));
    let statistics = bench.tensors("s");
    assert_eq!(statistics["rank0/bn/mean"], statistics["rank1/bn/mean"]);
    assert_eq!(statistics["rank2/bn/mean"], statistics["rank3/bn/mean"]);
    assert_ne!(statistics["rank0/bn/mean"], statistics["rank2/bn/mean"]);
    assert_eq!(
        bench.tensors("w")["bn.running_mean"],
        statistics["rank0/bn.running_mean"]
    );
    // Group 0 saw the first 8 samples: their mean, worked out here.
    let (_, x) = bench.array("d.npz", "x");
    let mean: Vec<f64> = (0..3)
        .map(|c| (0..8).map(|i| x[i * 3 + c]).sum::<f64>() / 8.0)
        .collect();
    assert_close(&statistics["rank0/bn/mean"], &mean, 1e-15, "mean");
    bench.fails(
        2,
        "train --data d.npz --ranks 3",
        &["groups of 2", "multiple of 2"],
    );
}

fn log_lines() {
    let bench = Bench::new("f64 sync");
    bench.data("d.npz", 20);
    bench.data("v.npz", 9);
    let flags = "--epochs 2 --schedule cosine --lr 0.2 --val v.npz";
    bench.ok(&format!("train --data d.npz {flags} --batch 8 --ranks 2 --log l"));
    let log = bench.log("l");
    let steps: Vec<_> = log.iter().filter(|line| line.get("step").is_some()).collect();
    let epochs: Vec<_> = log
        .iter()
        .filter(|line| line.get("epoch_end").is_some())
        .collect();
    assert_eq!((steps.len(), epochs.len(), log.len()), (4, 2, 6));
    for (index, line) in steps.iter().enumerate() {
        assert_eq!(line["step"], index + 1);
        assert_eq!(line["epoch"], index / 2 + 1);
        assert!(line["loss"].as_f64().unwrap() > 0.0 && line["images_per_s"].as_f64().unwrap() > 0.0);
    }
    assert_eq!(steps[0]["lr"], 0.2);
    assert!((steps[2]["lr"].as_f64().unwrap() - 0.1).abs() < 1e-15);
    for line in epochs {
        assert!(line.get("step").is_none());
        assert!(line["val_loss"].as_f64().unwrap() > 0.0);
        let hits = line["val_accuracy"].as_f64().unwrap() * 9.0;
        assert!((hits - hits.round()).abs() < 1e-12);
    }
    // Validation neither depends on the ranks nor disturbs the training.
    bench.ok(&format!(
        "train --data d.npz {flags} --rank-batches 6,8,2 --log m"
    ));
    for (one, other) in log.iter().zip(bench.log("m")) {
        for key in ["loss", "val_loss", "val_accuracy"] {
            if let Some(value) = one.get(key) {
                assert_close(
                    &[other[key].as_f64().unwrap()],
                    &[value.as_f64().unwrap()],
                    1e-12,
                    key,
                );
            }
        }
    }
}

fn a_pipe_gets_plain_lines() {
    let bench = Bench::new("f64 sync");
    bench.data("d.npz", 8);
    let run = bench.ok("train --data d.npz --batch 4 --steps 3");
    let lines: Vec<_> = run.stdout.lines().collect();
    assert_eq!(lines.len(), 4, "{}", run.stdout);
    assert!(
        lines[0].starts_with("1 rank of 1 thread on 1 of "),
        "{}",
        lines[0]
    );
    assert!(lines[3].starts_with("step 3/3 epoch 2 loss "), "{}", lines[3]);
    assert_eq!(run.stderr, "");
}

fn training_learns_and_continues() {
    let bench = Bench::new("f64 sync");
    bench.data("d.npz", 32);
    bench.ok("train --data d.npz --ranks 2 --batch 4 --epochs 20 --lr 0.1 --save w --log l");
    let log = bench.log("l");
    let losses: Vec<f64> = log.iter().filter_map(|line| line.get("loss")?.as_f64()).collect();
    assert!(losses[losses.len() - 1] < losses[0], "{losses:?}");
    bench.ok("train --data d.npz --weights w --lr 0 --batch 8 --no-shuffle --save v");
    for (name, values) in bench.tensors("v") {
        assert_eq!(
            values == bench.tensors("w")[&name],
            !name.contains("running"),
            "{name}"
        );
    }
}

fn an_interrupt_finishes_the_step_and_saves() {
    use std::io::{BufRead, BufReader};

    let bench = Bench::new("f64 sync");
    bench.data("d.npz", 32);
    for signal in [libc::SIGINT, libc::SIGTERM] {
        let _ = std::fs::remove_file(bench.path("w"));
        let mut command = bench.command("train --data d.npz --ranks 2 --steps 100000000 --batch 4 --save w");
        command
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped());
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
        let lines: Vec<String> = lines.take(2).map(Result::unwrap).collect();
        assert!(lines[1].starts_with("step 1/"), "{lines:?}");
        // SAFETY: the process is a child of this test and has not been waited for.
        unsafe { libc::kill(child.id() as i32, signal) };
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(130), "{text}");
        assert!(text.contains("interrupted after step"), "{text}");
        assert_eq!(bench.tensors("w").len(), 8);
    }
}
