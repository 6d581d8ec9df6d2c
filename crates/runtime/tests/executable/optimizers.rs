//! AdamW, and learning rates over a run.

use std::collections::BTreeMap;

use crate::harness::{Bench, assert_close};

crate::tests![
    three_steps_are_adamw,
    ranks_share_the_moments,
    sgd_is_the_default,
    learning_rates_are_logged,
    flags_of_another_choice_are_refused,
];

/// Without bias corrections, moments or decay these would end elsewhere.
const FLAGS: &str = "--no-shuffle --optimizer adamw --lr 0.02 --beta1 0.8 --beta2 0.95 --epsilon 1e-6 \
                     --weight-decay 0.1";

/// AdamW after the paper: with bias-corrected means of all gradients so far, written as weighted sums.
fn reference(start: &[f64], gradients: &[&Vec<f64>]) -> Vec<f64> {
    let (lr, beta1, beta2, epsilon, decay) = (0.02, 0.8_f64, 0.95_f64, 1e-6, 0.1);
    let element = |(i, &start): (usize, &f64)| {
        let mut p = start;
        for t in 1..=gradients.len() {
            let mean = |beta: f64, power: i32| {
                let weighted = |s: usize| beta.powi((t - s) as i32) * gradients[s - 1][i].powi(power);
                (1..=t).map(weighted).sum::<f64>() * (1.0 - beta) / (1.0 - beta.powi(t as i32))
            };
            p -= lr * (mean(beta1, 1) / (mean(beta2, 2).sqrt() + epsilon) + decay * p);
        }
        p
    };
    start.iter().enumerate().map(element).collect()
}

fn three_steps_are_adamw() {
    for (model, tolerance) in [("f64 sync", 1e-12), ("f32 sync", 1e-5)] {
        let bench = Bench::new(model);
        bench.data("d.npz", 24);
        bench.ok("train --data d.npz --optimizer adamw --lr 0 --steps 1 --save w0");
        for steps in 1..=3 {
            let files = format!("--save w{steps} --dump-gradients g{steps}");
            bench.ok(&format!(
                "train --data d.npz {FLAGS} --batch 8 --steps {steps} {files}"
            ));
        }
        let start = bench.tensors("w0");
        let gradients: Vec<_> = (1..=3).map(|step| bench.tensors(&format!("g{step}"))).collect();
        assert_eq!(gradients[0].len(), 5);
        for steps in 1..=3 {
            let found = bench.tensors(&format!("w{steps}"));
            for name in gradients[0].keys() {
                let so_far: Vec<_> = gradients[..steps].iter().map(|step| &step[name]).collect();
                let expected = reference(&start[name], &so_far);
                assert_close(
                    &found[name],
                    &expected,
                    tolerance,
                    &format!("{model} {steps} {name}"),
                );
            }
        }
        // Its gradients are 0, so it only decays.
        let unused = 3.0 * (1.0_f64 - 0.02 * 0.1).powi(3);
        assert_close(&bench.tensors("w3")["unused"], &[unused; 2], tolerance, "unused");
        assert_eq!(bench.tensors("w3")["constant"], [4.0]);
    }
}

fn ranks_share_the_moments() {
    let bench = Bench::new("f64 sync");
    bench.data("d.npz", 21);
    let run = |name: &str, split: &str| -> BTreeMap<String, Vec<f64>> {
        bench.ok(&format!(
            "train --data d.npz {FLAGS} --epochs 3 {split} --save {name}"
        ));
        bench.tensors(name)
    };
    let one = run("one", "--batch 8");
    for split in [
        "--ranks 4 --batch 2",
        "--ranks 8 --batch 1",
        "--rank-batches 5,3,0",
    ] {
        for (name, found) in run("many", split) {
            assert_close(&found, &one[&name], 1e-12, &format!("{split} {name}"));
        }
    }
}

fn sgd_is_the_default() {
    let bench = Bench::new("f64 sync");
    bench.data("d.npz", 16);
    let bytes = |name: &str, flags: &str| {
        bench.ok(&format!("train --data d.npz {flags} --save {name}"));
        std::fs::read(bench.path(name)).unwrap()
    };
    let given = "--optimizer sgd --lr 0.05 --momentum 0.9 --weight-decay 0";
    let default = bytes("a", "");
    assert!(default == bytes("b", given));
    let adamw = bytes("c", "--optimizer adamw");
    let given = "--lr 0.001 --beta1 0.9 --beta2 0.999 --epsilon 1e-8 --weight-decay 0.01";
    assert!(adamw == bytes("d", &format!("--optimizer adamw {given}")));
    assert!(default != adamw);
}

fn learning_rates_are_logged() {
    let bench = Bench::new("f64 sync");
    bench.data("d.npz", 16);
    let lr = |flags: &str| -> Vec<f64> {
        bench.ok(&format!("train --data d.npz --batch 8 --lr 0.2 --log l {flags}"));
        let steps = bench.log("l");
        steps.iter().filter_map(|line| line.get("lr")?.as_f64()).collect()
    };
    // An epoch has 2 steps.
    let step = lr("--epochs 5 --schedule step --step-size 2 --gamma 0.5");
    assert_close(
        &step,
        &[0.2, 0.2, 0.2, 0.2, 0.1, 0.1, 0.1, 0.1, 0.05, 0.05],
        1e-15,
        "step",
    );
    let step = lr("--steps 3 --schedule step --step-size 1 --optimizer adamw");
    assert_close(&step, &[0.2, 0.2, 0.02], 1e-15, "gamma");
    assert_close(
        &lr("--steps 5 --warmup 4"),
        &[0.05, 0.1, 0.15, 0.2, 0.2],
        1e-15,
        "constant",
    );
    let cosine = lr("--steps 4 --warmup 2 --schedule cosine");
    assert_close(&cosine, &[0.1, 0.2, 0.2, 0.1], 1e-15, "cosine");

    // The logged learning rate is the one of the update: a step at half the rate moves half as far.
    bench.ok("train --data d.npz --no-shuffle --lr 0 --steps 1 --save w0");
    bench.ok("train --data d.npz --no-shuffle --lr 0.2 --steps 1 --save w1");
    bench.ok("train --data d.npz --no-shuffle --lr 0.2 --warmup 2 --steps 1 --save half");
    let (start, full, half) = (bench.tensors("w0"), bench.tensors("w1"), bench.tensors("half"));
    for name in ["fc.weight", "fc.bias", "bn.weight", "bn.bias"] {
        let middle = |(a, b): (&f64, &f64)| (a + b) / 2.0;
        let expected: Vec<f64> = start[name].iter().zip(&full[name]).map(middle).collect();
        assert!(start[name] != full[name]);
        assert_close(&half[name], &expected, 1e-14, name);
    }
}

fn flags_of_another_choice_are_refused() {
    let bench = Bench::new("f64 sync");
    bench.data("d.npz", 8);
    for (flags, parts) in [
        (
            "--optimizer adamw --momentum 0.9",
            ["--momentum belongs to --optimizer sgd", "adamw"],
        ),
        (
            "--optimizer adamw --nesterov",
            ["--nesterov belongs to --optimizer sgd", "adamw"],
        ),
        ("--beta1 0.9", ["--beta1 belongs to --optimizer adamw", "sgd"]),
        ("--beta2 0.9", ["--beta2 belongs to --optimizer adamw", "sgd"]),
        (
            "--epsilon 1e-8",
            ["--epsilon belongs to --optimizer adamw", "sgd"],
        ),
        ("--optimizer adamw --beta2 1", ["--beta2", "below 1"]),
        ("--schedule step", ["--schedule step needs --step-size", "epochs"]),
        (
            "--step-size 2",
            ["--step-size belongs to --schedule step", "leave"],
        ),
        (
            "--schedule cosine --gamma 0.5",
            ["--gamma belongs to --schedule step", "leave"],
        ),
    ] {
        bench.fails(2, &format!("train --data d.npz --save w {flags}"), &parts);
    }
    assert!(!bench.path("w").exists());
}
