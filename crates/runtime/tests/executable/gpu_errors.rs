//! The GPU part's errors, the choice of a device, and what `bench` and `info` say of it.

use crate::{
    fake_model::{FAIL, OVERFLOW, gpu::GPUS},
    harness::Bench,
};

crate::tests![
    errors_of_all_ranks_are_printed_once,
    an_error_of_one_rank_names_it,
    devices_are_chosen,
    the_number_of_gpus_decides,
    bench_names_device_and_precision,
    info_shows_both_parts,
];

const X: [f64; 12] = [0.5, 1.0, 2.0, -1.0, 0.25, 3.0, 1.5, -0.5, 0.75, 2.5, 1.25, -2.0];

/// Four samples, one a rank, of which the third carries `poison`.
fn poisoned(bench: &Bench, poison: f64) {
    let mut x = X;
    x[6] = poison;
    bench.arrays("d.npz", &[("x", &[4, 3], &x)], Some(&[0, 1, 2, 3]));
}

fn errors_of_all_ranks_are_printed_once() {
    let bench = Bench::new("gpu f64 sync");
    let flags = "train --data d.npz --no-shuffle --ranks 4 --batch 1 --save w --log l";
    for (poison, layer) in [(OVERFLOW, "\"fc\" (gemm)"), (f64::NAN, "\"bn\" (batch_norm)")] {
        poisoned(&bench, poison);
        let text = bench.fails(2, flags, &["not finite in step 1", layer, "--lr"]);
        assert_eq!(text.matches("not finite in step 1").count(), 1, "{text}");
        assert_eq!(bench.log("l")[0]["loss"], serde_json::Value::Null);
    }
    assert!(!bench.path("w").exists());
    let text = bench.fails(2, "train --data none.npz --ranks 3", &["none.npz"]);
    assert_eq!(text.matches("none.npz").count(), 1, "{text}");
    bench.data("good.npz", 8);
    let flags = "train --data good.npz --ranks 2 --batch 2 --lr 1e308 --weight-decay 1e3 --save w";
    let text = bench.fails(2, flags, &["not finite in step 2", "\"fc.weight\""]);
    assert_eq!(text.matches("not finite in step 2").count(), 1, "{text}");
    let flags = "train --data good.npz --ranks 2 --batch 4 --steps 1 --lr 1e308 --weight-decay 1e3 --save w";
    let text = bench.fails(2, flags, &["is not finite after step 1"]);
    assert_eq!(text.matches("is not finite after step 1").count(), 1, "{text}");
    assert!(!bench.path("w").exists());
}

fn an_error_of_one_rank_names_it() {
    let bench = Bench::new("gpu f64 sync");
    poisoned(&bench, FAIL);
    let flags = "train --data d.npz --no-shuffle --ranks 4 --batch 1 --save w";
    bench.fails(
        1,
        flags,
        &[
            "[rank 2] internal error: the training step of rank 2 ended with status 7",
            "rank 2 died (last step 0)",
        ],
    );
    assert!(!bench.path("w").exists());
}

fn devices_are_chosen() {
    let train = "train --data d.npz";
    let both = Bench::new("both f64 sync");
    both.data("d.npz", 8);
    let device = |bench: &Bench, flags: &str| {
        let text = bench
            .ok(&format!("bench --json --steps 1 --warmup 0 {flags}"))
            .stdout;
        let figures: serde_json::Value = serde_json::from_str(&text).unwrap();
        figures["device"].as_str().unwrap().to_string()
    };
    assert_eq!(device(&both, ""), "cpu");
    assert_eq!(device(&both, "--device cuda-emulated"), "cuda-emulated");
    both.fails(
        4,
        &format!("{train} --device cuda"),
        &["--device cuda", "no GPU part"],
    );
    let gpu = Bench::new("gpu f64 sync");
    gpu.data("d.npz", 8);
    assert_eq!(device(&gpu, ""), "cuda-emulated");
    gpu.fails(
        4,
        &format!("{train} --device cpu"),
        &["--device cpu", "no CPU part", "cuda-emulated"],
    );
    let cpu = Bench::new("f64 sync");
    cpu.data("d.npz", 8);
    cpu.fails(
        4,
        &format!("{train} --device cuda-emulated"),
        &["--device cuda-emulated", "no emulated kernels", "--device cpu"],
    );
}

/// What `bench` says when there are `gpus` GPUs, or its error.
fn bench_with(
    bench: &Bench,
    gpus: Option<&str>,
    flags: &str,
) -> Result<(String, u64, String), (i32, String)> {
    let mut command = bench.command(&format!("bench --json --steps 1 --warmup 0 {flags}"));
    if let Some(gpus) = gpus {
        command.env(GPUS, gpus);
    }
    let output = command.output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    if output.status.code() != Some(0) {
        return Err((output.status.code().unwrap(), stderr));
    }
    let figures: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let device = figures["device"].as_str().unwrap().to_string();
    Ok((device, figures["ranks"].as_u64().unwrap(), stderr))
}

fn the_number_of_gpus_decides() {
    let (all, cuda) = (Bench::new("all f64 sync"), Bench::new("cuda f64 sync"));
    // A GPU is taken, every GPU has a rank, and nobody needs to be told.
    for (gpus, flags, ranks) in [
        ("1", "", 1),
        ("3", "", 3),
        ("3", "--ranks 2", 2),
        ("2", "--device cuda", 2),
    ] {
        let found = bench_with(&all, Some(gpus), flags).unwrap();
        assert_eq!(
            found,
            ("cuda".to_string(), ranks, String::new()),
            "{gpus} {flags}"
        );
    }
    // Without one the CPU part runs and says so, else the emulator.
    let note = |device: &str, place: &str, cause: &str| {
        let note = format!("note: running {place}, as there is no GPU: {cause}\n");
        (device.to_string(), 1, note)
    };
    let (absent, none) = ("the driver is absent", "the CUDA driver sees no GPU");
    assert_eq!(
        bench_with(&all, None, "").unwrap(),
        note("cpu", "on the CPU", absent)
    );
    assert_eq!(
        bench_with(&all, Some("0"), "").unwrap(),
        note("cpu", "on the CPU", none)
    );
    assert_eq!(
        bench_with(&cuda, None, "").unwrap(),
        note("cuda-emulated", "in the emulator", absent)
    );
    // What was asked for is not replaced.
    let error = bench_with(&all, None, "--device cuda").unwrap_err();
    assert!(error.0 == 4 && error.1.contains(absent), "{error:?}");
    let error = bench_with(&all, Some("2"), "--ranks 3").unwrap_err();
    assert!(error.0 == 4 && error.1.contains("3 ranks"), "{error:?}");
    assert!(error.1.contains("NCCL_MULTI_RANK_GPU_ENABLE"), "{error:?}");
    let mut command = all.command("bench --json --steps 1 --ranks 3");
    command.env(GPUS, "2").env("NCCL_MULTI_RANK_GPU_ENABLE", "1");
    assert_eq!(command.output().unwrap().status.code(), Some(0));
}

fn bench_names_device_and_precision() {
    let bench = Bench::new("gpu f32 sync");
    for (flags, ranks, collectives) in [
        ("--ranks 3 --batch 4", 3, 3),
        ("--batch 4", 1, 0),
        ("--mode infer --ranks 2 --batch 4", 2, 0),
    ] {
        let run = bench.ok(&format!("bench --json --steps 4 --warmup 1 {flags}"));
        let figures: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
        assert_eq!(figures["device"], "cuda-emulated");
        assert_eq!(figures["precision"], "f32");
        assert_eq!(figures["ranks"], ranks);
        assert_eq!(figures["collectives_per_step"], collectives, "{flags}");
    }
    let text = bench.ok("bench --steps 2 --ranks 2").stdout;
    assert!(
        text.contains("train on cuda-emulated in f32, 2 ranks with 8 samples each"),
        "{text}"
    );
}

fn info_shows_both_parts() {
    let bench = Bench::new("both f32 sync");
    let info: serde_json::Value = serde_json::from_str(&bench.ok("info --json").stdout).unwrap();
    assert_eq!(info["targets"], serde_json::json!(["cpu"]));
    assert!(info.get("gpu").is_none() && info.get("images").is_none());
    let part = &info["gpu_part"];
    assert_eq!(part["gpu"]["precision"], "f32");
    assert_eq!(part["gpu"]["kernels"][0]["name"], "unused_kernel");
    assert_eq!(part["arenas"]["weights"], 448);
    let text = bench.ok("info").stdout;
    for part in [
        "processor",
        "precision   f32",
        "devices     cuda-emulated",
        "kernels (7)",
        "unused_kernel 128 threads a block, 512 bytes of shared memory, for 2 shapes",
        "sgd 1 threads a block, 0 bytes of shared memory\n",
        "training constants      8",
    ] {
        assert!(text.contains(part), "no {part:?} in\n{text}");
    }
    let alone = Bench::new("gpu f32 sync");
    let info: serde_json::Value = serde_json::from_str(&alone.ok("info --json").stdout).unwrap();
    assert_eq!(info["gpu"]["emulated"], true);
    assert!(info.get("gpu_part").is_none());
}
