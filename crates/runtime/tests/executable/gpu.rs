//! The GPU part on emulated devices: the same numbers as the CPU part, with ranks in processes.

use crate::harness::{Bench, assert_close};

crate::tests![
    ranks_in_processes_train_as_one_on_the_cpu,
    adamw_trains_as_on_the_cpu,
    groups_have_their_own_statistics,
    inference_splits_over_processes,
    validation_is_logged_by_rank_0,
    a_signal_ends_all_ranks_after_one_step,
    a_signal_ends_a_single_rank,
];

const FLAGS: &str = "--no-shuffle --lr 0.1 --momentum 0.9 --weight-decay 1e-4";

/// Trains on the CPU with one rank and on emulated GPUs in several splits; all files must agree.
fn compare_with_cpu(flags: &str, splits: &[&str]) {
    let bench = Bench::new("both f64 sync");
    bench.data("d.npz", 21);
    let run = |name: &str, split: &str| {
        let dumps = format!("--save {name}.w --dump-gradients {name}.g --dump-outputs {name}.npz");
        bench.ok(&format!(
            "train --data d.npz {flags} --epochs 3 {split} {dumps} --dump-statistics {name}.s"
        ))
    };
    run("cpu", "--device cpu --batch 8");
    for split in splits {
        let run = run("gpu", &format!("--device cuda-emulated {split}"));
        assert_eq!(run.stderr, "", "{split}");
        assert!(run.stdout.contains("saved \"gpu.w\""), "{}", run.stdout);
        assert_eq!(run.stdout.matches("step 1/").count(), 1, "{}", run.stdout);
        for kind in ["w", "g"] {
            let expected = bench.tensors(&format!("cpu.{kind}"));
            let found = bench.tensors(&format!("gpu.{kind}"));
            assert!(found.keys().eq(expected.keys()));
            for (tensor, found) in found {
                assert_close(&found, &expected[&tensor], 1e-12, &format!("{split} {tensor}"));
            }
        }
        let (shape, found) = bench.array("gpu.npz", "logits");
        let (expected_shape, expected) = bench.array("cpu.npz", "logits");
        assert_eq!(shape, expected_shape);
        assert_close(&found, &expected, 1e-12, split);
        let statistics = bench.tensors("gpu.s");
        for (tensor, found) in &statistics {
            let (_, tensor) = tensor.split_once('/').unwrap();
            let first = &statistics[&format!("rank0/{tensor}")];
            assert!(
                found.iter().zip(first).all(|(a, b)| a.to_bits() == b.to_bits()),
                "{split} {tensor}"
            );
        }
        for (tensor, found) in bench.tensors("cpu.s") {
            assert_close(&statistics[&tensor], &found, 1e-12, &tensor);
        }
    }
}

fn ranks_in_processes_train_as_one_on_the_cpu() {
    let splits = [
        "--batch 8",
        "--ranks 2 --batch 4",
        "--ranks 4 --batch 2",
        "--rank-batches 5,3,0",
    ];
    compare_with_cpu(FLAGS, &splits);
}

fn adamw_trains_as_on_the_cpu() {
    let flags = "--optimizer adamw --lr 0.01 --weight-decay 0.02 --schedule cosine";
    compare_with_cpu(flags, &["--batch 8", "--rank-batches 3,5"]);
}

fn groups_have_their_own_statistics() {
    let bench = Bench::new("both f64 group=2");
    bench.data("d.npz", 32);
    bench.data("v.npz", 9);
    let run = |name: &str, device: &str| {
        bench.ok(&format!(
            "train --data d.npz --val v.npz {FLAGS} --device {device} --ranks 4 --batch 4 --dump-statistics {name}.s \
             --save {name}.w --log {name}.log"
        ));
    };
    run("cpu", "cpu");
    run("gpu", "cuda-emulated");
    for kind in ["s", "w"] {
        let expected = bench.tensors(&format!("cpu.{kind}"));
        for (tensor, found) in bench.tensors(&format!("gpu.{kind}")) {
            assert_close(&found, &expected[&tensor], 1e-12, &tensor);
        }
    }
    let statistics = bench.tensors("gpu.s");
    assert_eq!(statistics["rank2/bn/mean"], statistics["rank3/bn/mean"]);
    assert_ne!(statistics["rank0/bn/mean"], statistics["rank2/bn/mean"]);
    // Validation uses rank 0's statistics on all ranks.
    for (found, expected) in bench.log("gpu.log").iter().zip(bench.log("cpu.log")) {
        for key in ["loss", "val_loss", "val_accuracy"] {
            if let Some(value) = expected.get(key) {
                assert_close(
                    &[found[key].as_f64().unwrap()],
                    &[value.as_f64().unwrap()],
                    1e-12,
                    key,
                );
            }
        }
    }
}

fn inference_splits_over_processes() {
    let bench = Bench::new("both f64 sync");
    bench.data("d.npz", 29);
    bench.ok("train --data d.npz --device cpu --save w");
    bench.ok("infer --data d.npz --device cpu --weights w -o cpu.npz");
    let expected = bench.array("cpu.npz", "logits");
    for ranks in [1, 2, 3] {
        bench.ok(&format!(
            "infer --data d.npz --device cuda-emulated --weights w --ranks {ranks} -o gpu.npz"
        ));
        assert_eq!(bench.array("gpu.npz", "logits"), expected, "{ranks}");
    }
    // More ranks than samples.
    bench.data("two.npz", 2);
    bench.ok("infer --data two.npz --device cuda-emulated --weights w --ranks 3 -o two-out.npz");
    assert_eq!(bench.array("two-out.npz", "logits").0, [2, 4]);
}

fn validation_is_logged_by_rank_0() {
    let bench = Bench::new("gpu f64 sync");
    bench.data("d.npz", 20);
    bench.data("v.npz", 9);
    let flags = "train --data d.npz --epochs 2 --schedule cosine --lr 0.2 --val v.npz";
    let one = bench.ok(&format!("{flags} --batch 8 --log one"));
    let two = bench.ok(&format!("{flags} --rank-batches 2,6 --log two"));
    assert_eq!(one.stdout.lines().count(), two.stdout.lines().count());
    let (one, two) = (bench.log("one"), bench.log("two"));
    assert_eq!(one.len(), 3 * 2 + 2);
    assert_eq!(one.len(), two.len());
    for (one, two) in one.iter().zip(two) {
        for key in ["loss", "val_loss", "val_accuracy"] {
            if let Some(value) = one.get(key) {
                let found = two[key].as_f64().unwrap();
                assert_close(&[found], &[value.as_f64().unwrap()], 1e-12, key);
            }
        }
    }
}

/// Sends `signal` to a run after its first step; returns its standard error.
fn interrupt(bench: &Bench, flags: &str, signal: i32) -> String {
    use std::io::{BufRead, BufReader};

    let mut command = bench.command(&format!(
        "train --data d.npz --device cuda-emulated --steps 100000000 --batch 4 --save w {flags}"
    ));
    command
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert!(line.starts_with("step 1/"), "{line}");
    // SAFETY: the process is a child of this test and has not been waited for.
    unsafe { libc::kill(child.id() as i32, signal) };
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(130), "{text}");
    assert_eq!(bench.tensors("w").len(), 8);
    std::fs::remove_file(bench.path("w")).unwrap();
    text
}

fn a_signal_ends_all_ranks_after_one_step() {
    let bench = Bench::new("gpu f64 sync");
    bench.data("d.npz", 32);
    for signal in [libc::SIGINT, libc::SIGTERM] {
        let text = interrupt(&bench, "--ranks 3", signal);
        assert_eq!(text.matches("interrupted after step").count(), 1, "{text}");
        assert!(!text.contains("[rank"), "{text}");
    }
}

fn a_signal_ends_a_single_rank() {
    let bench = Bench::new("gpu f64 sync");
    bench.data("d.npz", 32);
    let text = interrupt(&bench, "", libc::SIGINT);
    assert!(text.contains("interrupted after step"), "{text}");
}
