//! `infer`, `bench` and `info`.

use crate::harness::{Bench, assert_close};

crate::tests![
    infer_slices_and_splits,
    bench_counts_collectives,
    info_lists_everything,
    unwritable_output_is_an_error,
    version_and_help,
];

fn infer_slices_and_splits() {
    let bench = Bench::new("f64 sync");
    bench.data("d.npz", 29);
    bench.ok("train --data d.npz --save w");
    bench.ok("infer --data d.npz --weights w -o one.npz");
    let (shape, one) = bench.array("one.npz", "logits");
    assert_eq!(shape, [29, 4]);
    let tensors = bench.tensors("w");
    let (_, x) = bench.array("d.npz", "x");
    let expected: Vec<f64> = (0..29 * 4)
        .map(|i| {
            let term = |c: usize| {
                let inv_std = 1.0 / (tensors["bn.running_var"][c] + 1e-5).sqrt();
                let xhat = (x[i / 4 * 3 + c] - tensors["bn.running_mean"][c]) * inv_std;
                let z = tensors["bn.weight"][c] * xhat + tensors["bn.bias"][c];
                tensors["fc.weight"][i % 4 * 3 + c] * z
            };
            (0..3).map(term).sum::<f64>() + tensors["fc.bias"][i % 4]
        })
        .collect();
    assert_close(&one, &expected, 1e-13, "logits");
    for ranks in [2, 5, 40] {
        bench.ok(&format!(
            "infer --data d.npz --weights w --ranks {ranks} -o many.npz"
        ));
        assert_eq!(bench.array("many.npz", "logits").1, one);
    }
    let random = bench.ok("infer --data d.npz -o random.npz");
    assert!(
        random.stderr.contains("warning") && random.stderr.contains("--weights"),
        "{}",
        random.stderr
    );
}

fn bench_counts_collectives() {
    let bench = Bench::new("f32 sync");
    for (flags, ranks, collectives) in [
        ("--ranks 3 --batch 4", 3, 3),
        ("--batch 4", 1, 0),
        ("--mode infer --ranks 3 --batch 4", 3, 0),
    ] {
        let run = bench.ok(&format!("bench --json --steps 4 --warmup 1 {flags}"));
        let figures: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
        assert_eq!(figures["ranks"], ranks);
        assert_eq!(figures["collectives_per_step"], collectives, "{flags}");
        let number = |key: &str| figures[key].as_f64().unwrap();
        assert!(number("min_ms") <= number("median_ms") && number("median_ms") <= number("max_ms"));
        assert!(number("peak_rss_bytes") > 1e5);
        let rate = number("images_per_s") * number("median_ms") / 1e3;
        assert!((rate - f64::from(ranks) * 4.0).abs() < 1e-6);
    }
    assert!(bench.ok("bench --steps 2").stdout.contains("median"));
    bench.fails(
        2,
        "bench --batch 9",
        &["--batch", "at most 8", "syncbn-compile --batch 9"],
    );
}

fn info_lists_everything() {
    let bench = Bench::new("f64 sync");
    let info: serde_json::Value = serde_json::from_str(&bench.ok("info --json").stdout).unwrap();
    assert_eq!(info["collectives_per_step"], 3);
    assert_eq!(info["collective_bytes_per_step"], 288);
    assert_eq!(info["constant"], serde_json::json!(["constant"]));
    assert_eq!(info["trained"].as_array().unwrap().len(), 5);
    assert_eq!(info["arenas"]["weights"], 448);
    let text = bench.ok("info").stdout;
    for part in [
        "--bn sync",
        "fc.weight [4, 3]",
        "labels 0 to 3",
        "x [n, 3]",
        "logits [n, 4]",
        "bn 3 channels",
        "glibc",
    ] {
        assert!(text.contains(part), "no {part:?} in\n{text}");
    }
}

fn unwritable_output_is_an_error() {
    let bench = Bench::new("f64 sync");
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = bench.command("info").stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(4));
    assert!(
        String::from_utf8(output.stderr)
            .unwrap()
            .contains("standard output")
    );
}

fn version_and_help() {
    let bench = Bench::new("f64 sync");
    assert!(bench.ok("--version").stdout.contains("syncbn-compile 0.1.0"));
    let help = bench.ok("train --help").stdout;
    for part in [
        "--rank-batches",
        "cos(pi * t / T)",
        "state is not saved yet",
        "--dump-statistics",
    ] {
        assert!(help.contains(part), "no {part:?} in\n{help}");
    }
}
