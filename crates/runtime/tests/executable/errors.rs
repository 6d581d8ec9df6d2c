//! Wrong use, wrong data and failing ranks: exit codes, what the messages name, and what is left on disk.

use crate::{
    fake_model::{DIVERGE, FAIL, OVERFLOW},
    harness::Bench,
};

crate::tests![
    wrong_flags,
    wrong_data,
    wrong_labels,
    damaged_data,
    wrong_weights,
    single_values,
    failing_ranks,
    losses_that_are_not_finite,
    launchers,
];

const X: [f64; 12] = [0.5, 1.0, 2.0, -1.0, 0.25, 3.0, 1.5, -0.5, 0.75, 2.5, 1.25, -2.0];

fn wrong_flags() {
    let bench = Bench::new("f64 sync");
    bench.data("d.npz", 8);
    for (flags, parts) in [
        ("--batch 9", ["--batch", "syncbn-compile --batch 9"]),
        ("--rank-batches 9,1", ["--rank-batches", "at most 8"]),
        (
            "--rank-batches 2,2 --ranks 3",
            ["--rank-batches gives 2", "--ranks"],
        ),
        ("--rank-batches 0,0", ["--rank-batches", "no rank"]),
        ("--optimizer adagrad", ["--optimizer", "adagrad"]),
        ("--schedule linear", ["--schedule", "linear"]),
        ("--epochs 1 --steps 1", ["--epochs", "--steps"]),
        ("--drop-last --ranks 2", ["--drop-last", "16"]),
        ("--save no/w", ["--save", "does not exist"]),
        ("--data none.npz", ["--data", "cannot be used multiple times"]),
    ] {
        bench.fails(2, &format!("train --data d.npz {flags}"), &parts);
    }
    bench.fails(2, "train --data none.npz", &["none.npz"]);
    bench.fails(2, "nonsense", &["nonsense"]);
    bench.fails(
        4,
        "train --data d.npz --device cuda",
        &["--device cuda", "no GPU part"],
    );
    bench.fails(2, "infer --data d.npz -o no/o.npz", &["-o", "does not exist"]);
}

fn wrong_data() {
    let bench = Bench::new("f64 sync");
    let labels = [0, 1, 2, 3];
    bench.arrays("other.npz", &[("y", &[4, 3], &X)], Some(&labels));
    bench.fails(
        2,
        "train --data other.npz",
        &["no array \"x\"", "\"y\", \"target\""],
    );
    bench.arrays("shape.npz", &[("x", &[3, 4], &X)], Some(&labels[..3]));
    bench.fails(
        2,
        "train --data shape.npz",
        &["expected (samples, 3)", "found (3, 4)"],
    );
    bench.arrays("count.npz", &[("x", &[4, 3], &X)], Some(&labels[..3]));
    bench.fails(2, "train --data count.npz", &["\"x\" has 4, \"target\" has 3"]);
    bench.arrays("zero.npz", &[("x", &[0, 3], &[])], Some(&[]));
    bench.fails(2, "train --data zero.npz", &["no samples"]);
    bench.fails(2, "infer --data zero.npz -o o.npz", &["no samples"]);
    assert!(!bench.path("o.npz").exists());
}

fn wrong_labels() {
    let bench = Bench::new("f64 sync");
    bench.arrays("four.npz", &[("x", &[4, 3], &X)], Some(&[0, 1, 4, 3]));
    bench.fails(
        2,
        "train --data four.npz",
        &["label 4 at index 2", "labels are 0 to 3"],
    );
    bench.arrays("ignore.npz", &[("x", &[4, 3], &X)], Some(&[0, -100, 2, 3]));
    bench.fails(
        2,
        "train --data ignore.npz",
        &["label -100 at index 1", "ignoring labels is not supported"],
    );
    bench.arrays(
        "float.npz",
        &[("x", &[4, 3], &X), ("target", &[4], &X[..4])],
        None,
    );
    bench.fails(2, "train --data float.npz", &["float64", "integers"]);
}

fn damaged_data() {
    let bench = Bench::new("f64 sync");
    bench.data("d.npz", 64);
    let whole = std::fs::read(bench.path("d.npz")).unwrap();
    std::fs::write(bench.path("short.npz"), &whole[..whole.len() / 2]).unwrap();
    bench.fails(2, "train --data short.npz", &["short.npz", "not a complete npz"]);
    let mut flipped = whole.clone();
    flipped[600] ^= 1;
    std::fs::write(bench.path("flipped.npz"), &flipped).unwrap();
    bench.fails(2, "train --data flipped.npz", &["flipped.npz", "damaged"]);
    // A shape of the same width in the header that needs more data than the archive has.
    let text = b"(64, 3)";
    let at = whole
        .windows(text.len())
        .position(|window| window == text)
        .unwrap();
    let mut claims = whole;
    claims[at..at + 7].copy_from_slice(b"(99, 3)");
    std::fs::write(bench.path("claims.npz"), &claims).unwrap();
    bench.fails(
        2,
        "infer --data claims.npz -o o.npz",
        &["claims.npz", "needs 2376 bytes"],
    );
}

fn wrong_weights() {
    let bench = Bench::new("f64 sync");
    bench.data("d.npz", 8);
    bench.ok("train --data d.npz --save w");
    let bytes = std::fs::read(bench.path("w")).unwrap();
    std::fs::write(bench.path("cut"), &bytes[..bytes.len() - 1]).unwrap();
    bench.fails(
        2,
        "infer --data d.npz --weights cut -o o.npz",
        &["cut", "not a complete safetensors"],
    );
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let tensors = file
        .tensors()
        .into_iter()
        .filter(|(name, _)| name != "bn.bias")
        .map(|(name, view)| {
            let name = if name == "fc.bias" {
                "fc.bios".to_string()
            } else {
                name
            };
            let shape = if name == "fc.weight" {
                vec![3, 4]
            } else {
                view.shape().to_vec()
            };
            (
                name,
                safetensors::tensor::TensorView::new(view.dtype(), shape, view.data()).unwrap(),
            )
        });
    std::fs::write(
        bench.path("wrong"),
        safetensors::serialize(tensors, None).unwrap(),
    )
    .unwrap();
    bench.fails(
        2,
        "infer --data d.npz --weights wrong -o o.npz",
        &[
            "missing: \"bn.bias\" [3]",
            "missing: \"fc.bias\" [4]",
            "not in the model: \"fc.bios\"",
            "wrong shape: \"fc.weight\" expected [4, 3], found [3, 4]",
        ],
    );
    assert!(!bench.path("o.npz").exists());
}

fn single_values() {
    let bench = Bench::new("f64 sync");
    bench.data("d.npz", 9);
    let parts = ["BatchNorm \"bn\"", "step 2", "--drop-last"];
    bench.fails(2, "train --data d.npz --ranks 2 --batch 4 --save w", &parts);
    assert!(!bench.path("w").exists());
    bench.ok("train --data d.npz --ranks 2 --batch 4 --drop-last");
    bench.ok("train --data d.npz --ranks 2 --batch 4 --steps 1");
    let local = Bench::new("f64 local");
    local.data("d.npz", 9);
    local.fails(2, "train --data d.npz --rank-batches 8,1", &["rank 1", "step 1"]);
    let group = Bench::new("f64 group=2");
    group.data("d.npz", 9);
    group.fails(
        2,
        "train --data d.npz --rank-batches 4,4,0,1",
        &["group 1 (ranks 2 to 3)", "step 1"],
    );
    let frozen = Bench::new("f64 frozen");
    frozen.data("d.npz", 9);
    frozen.ok("train --data d.npz --ranks 2 --batch 4");
}

/// Four samples, one a rank, of which one carries `poison`.
fn poisoned(bench: &Bench, poison: f64) {
    let mut x = X;
    x[6] = poison;
    bench.arrays("d.npz", &[("x", &[4, 3], &x)], Some(&[0, 1, 2, 3]));
}

fn failing_ranks() {
    let bench = Bench::new("f64 sync");
    poisoned(&bench, FAIL);
    let flags = "train --data d.npz --no-shuffle --ranks 4 --batch 1 --save w";
    bench.fails(1, flags, &["internal error", "rank 2", "status 7"]);
    poisoned(&bench, DIVERGE);
    bench.fails(1, flags, &["internal error", "collective"]);
    assert!(!bench.path("w").exists());
}

fn losses_that_are_not_finite() {
    let bench = Bench::new("f64 sync");
    bench.data("good.npz", 8);
    bench.ok("train --data good.npz --save w");
    let good = std::fs::read(bench.path("w")).unwrap();
    let flags = "train --data d.npz --no-shuffle --ranks 2 --batch 2 --save w --log l";
    poisoned(&bench, OVERFLOW);
    bench.fails(2, flags, &["not finite in step 1", "\"fc\" (gemm)", "--lr"]);
    assert_eq!(bench.log("l")[0]["loss"], serde_json::Value::Null);
    poisoned(&bench, f64::NAN);
    bench.fails(2, flags, &["not finite in step 1", "\"bn\" (batch_norm)"]);
    assert!(std::fs::read(bench.path("w")).unwrap() == good);
    // The first update overflows; the epoch has a second step.
    let flags = "train --data good.npz --batch 4 --lr 1e308 --weight-decay 1e3 --save v";
    bench.fails(
        2,
        flags,
        &["not finite in step 2", "\"fc.weight\"", "step before"],
    );
    assert!(!bench.path("v").exists());
}

fn launchers() {
    let bench = Bench::new("f64 sync");
    bench.data("d.npz", 8);
    let run = |flags: &str, size: &str| {
        let mut command = bench.command(&format!("train --data d.npz {flags}"));
        command
            .env("OMPI_COMM_WORLD_RANK", "0")
            .env("OMPI_COMM_WORLD_SIZE", size)
            .output()
            .unwrap()
    };
    let output = run("", "2");
    assert_eq!(output.status.code(), Some(3));
    assert!(
        String::from_utf8(output.stderr)
            .unwrap()
            .contains("--no-launcher-env")
    );
    assert_eq!(run("--no-launcher-env", "2").status.code(), Some(0));
    assert_eq!(run("", "1").status.code(), Some(0));
}
