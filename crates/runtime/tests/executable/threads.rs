//! Ranks of several threads, and what is said of ranks, threads and cores.

use crate::{fake_model::FAIL, harness::Bench, tests};

tests![
    threads_of_a_rank_change_no_bit,
    a_thread_that_fails_ends_the_others,
    threads_need_code_that_divides_its_work,
    all_cores_are_used_where_the_code_divides_its_work,
    the_first_line_says_who_computes,
    more_ranks_than_cores_are_a_warning,
    the_time_of_each_node_is_listed,
];

/// Cores of this process.
fn cores() -> usize {
    std::thread::available_parallelism().unwrap().get()
}

fn threads_of_a_rank_change_no_bit() {
    for optimizer in ["", "--optimizer adamw"] {
        let bench = Bench::new("threads f32 sync");
        bench.data("d.npz", 24);
        let mut saved = Vec::new();
        for (ranks, threads) in [(1, 1), (1, 2), (1, 5), (2, 1), (2, 3)] {
            bench.ok(&format!(
                "train --data d.npz --batch 4 --steps 5 --save w --ranks {ranks} --threads-per-rank {threads} {optimizer}"
            ));
            saved.push((ranks, std::fs::read(bench.path("w")).unwrap()));
        }
        for pair in saved.windows(2).filter(|pair| pair[0].0 == pair[1].0) {
            assert!(pair[0].1 == pair[1].1, "{} ranks {optimizer}", pair[0].0);
        }
    }
}

fn a_thread_that_fails_ends_the_others() {
    let bench = Bench::new("threads f64 sync");
    let mut x = vec![0.5; 8 * 3];
    x[3] = FAIL;
    bench.arrays("d.npz", &[("x", &[8, 3], &x)], Some(&[0; 8]));
    for ranks in [1, 2] {
        let flags = format!("train --data d.npz --batch 4 --ranks {ranks} --threads-per-rank 3");
        bench.fails(1, &flags, &["the training step of rank", "ended with status 7"]);
    }
}

fn threads_need_code_that_divides_its_work() {
    let bench = Bench::new("f64 sync");
    bench.data("d.npz", 8);
    bench.ok("train --data d.npz --batch 4 --threads-per-rank 1");
    let words = ["--threads-per-rank 2", "one thread a rank", "--ranks"];
    bench.fails(3, "train --data d.npz --batch 4 --threads-per-rank 2", &words);
    let gpu = Bench::new("gpu f64 sync");
    gpu.data("d.npz", 8);
    let flags = "train --data d.npz --batch 4 --device cuda-emulated --threads-per-rank 2";
    gpu.fails(2, flags, &["--threads-per-rank", "cuda-emulated", "--device cpu"]);
}

fn all_cores_are_used_where_the_code_divides_its_work() {
    let bench = Bench::new("threads f64 sync");
    let figures = |flags: &str| -> serde_json::Value {
        let run = bench.ok(&format!("bench --json --steps 2 --warmup 1 --batch 4 {flags}"));
        serde_json::from_str(&run.stdout).unwrap()
    };
    assert_eq!(figures("")["threads_per_rank"], cores());
    assert_eq!(figures("")["cores"], cores());
    assert_eq!(figures("--ranks 2")["threads_per_rank"], (cores() / 2).max(1));
    assert_eq!(figures("--threads-per-rank 1")["threads_per_rank"], 1);
}

fn the_first_line_says_who_computes() {
    let bench = Bench::new("threads f64 sync");
    bench.data("d.npz", 8);
    let cores = cores();
    let of_cores = match cores {
        1 => "1 core".to_string(),
        _ => format!("{cores} cores"),
    };
    for (ranks, threads, text) in [(1, 1, "1 rank of 1 thread"), (2, 3, "2 ranks of 3 threads")] {
        let used = cores.min(ranks * threads);
        let expected = format!("{text} on {used} of {of_cores}");
        for command in [
            "train --data d.npz --batch 4",
            "infer --data d.npz -o o.npz",
            "bench --steps 1",
        ] {
            let run = bench.ok(&format!("{command} --ranks {ranks} --threads-per-rank {threads}"));
            assert_eq!(run.stdout.lines().next(), Some(expected.as_str()), "{command}");
        }
    }
}

fn more_ranks_than_cores_are_a_warning() {
    let bench = Bench::new("f64 sync");
    bench.data("d.npz", 8);
    let ranks = cores() + 1;
    let run = bench.ok(&format!("train --data d.npz --batch 1 --steps 1 --ranks {ranks}"));
    assert!(
        run.stderr
            .contains(&format!("warning: {ranks} ranks take turns on {}", cores())),
        "{}",
        run.stderr
    );
    assert_eq!(bench.ok("train --data d.npz --batch 4 --ranks 1").stderr, "");
}

fn the_time_of_each_node_is_listed() {
    for flags in ["", "--ranks 2"] {
        let bench = Bench::new("both f64 sync");
        for device in ["cpu", "cuda-emulated"] {
            let run = bench.ok(&format!(
                "bench --device {device} --batch 4 --steps 3 --warmup 1 --per-layer --json {flags}"
            ));
            let figures: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
            let layers = figures["layers"].as_array().unwrap();
            let mut names: Vec<&str> = layers
                .iter()
                .map(|layer| layer["name"].as_str().unwrap())
                .collect();
            names.sort_unstable();
            assert_eq!(names, ["bn", "fc"], "{device} {flags}");
            let sum = |key: &str| {
                layers
                    .iter()
                    .map(|layer| layer[key].as_f64().unwrap())
                    .sum::<f64>()
            };
            assert!((sum("share") - 1.0).abs() < 1e-9);
            assert!(sum("ms") > 0.0);
            assert_eq!(layers[0]["bytes"], 4 * 8);
        }
        let text = bench.ok("bench --device cpu --steps 1 --per-layer").stdout;
        assert!(text.contains("GFLOP/s") && text.contains(" gemm "), "{text}");
    }
}
