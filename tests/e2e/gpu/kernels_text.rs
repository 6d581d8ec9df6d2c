//! `--emit kernels`: its text, and the flags that choose the GPU and the form.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use serde_json::Value;

use super::kernels::{MLP, check_rows, emit, launches, number, report, step};
use crate::support::fixture;
use crate::support::run::{Outcome, compile, compiler, listing};

#[test]
fn the_table_is_the_golden_one_and_says_what_the_json_says() {
    let flags = "--target cuda --batch 8 --emit kernels";
    let found = emit(&fixture(MLP), "", flags).ok();
    let expect = fixture("kernels/mlp_bn1d.expect");
    if std::env::var_os("SYNCBN_BLESS").is_some_and(|v| v == "1") {
        assert!(
            std::env::var_os("CI").is_none_or(|v| v != "true"),
            "blessing is refused in CI"
        );
        fs::write(&expect, found.text()).unwrap();
    }
    let expected = fs::read_to_string(&expect).unwrap_or_default();
    for (i, (found, expected)) in found.text().lines().zip(expected.lines()).enumerate() {
        assert_eq!(found, expected, "line {}; if this is right: {BLESS}", i + 1);
    }
    assert_eq!(found.text().lines().count(), expected.lines().count(), "{BLESS}");
    assert!(found.text().lines().all(|line| line.chars().count() <= 160));
    let json = report(&fixture(MLP), "--batch 8");
    let totals: Vec<&str> = found
        .text()
        .lines()
        .filter(|line| line.starts_with("total: "))
        .collect();
    let steps = json["steps"].as_array().unwrap();
    assert_eq!(totals.len(), steps.len());
    for (line, step) in totals.iter().zip(steps) {
        let totals = &step["totals"];
        let words: Vec<&str> = line.split([' ', '(']).collect();
        assert_eq!(
            words[1].parse::<f64>().unwrap(),
            number(totals, "launches"),
            "{line}"
        );
        // `N launches, F GFLOP, B GB moved (R read, W written), L GB at least, T ms`
        let of = |field: &str, unit: f64| number(totals, field) / unit;
        for (place, value) in [
            (3, of("flop", 1e9)),
            (5, of("read_bytes", 1e9) + of("written_bytes", 1e9)),
            (9, of("read_bytes", 1e9)),
            (11, of("written_bytes", 1e9)),
            (13, of("least_bytes", 1e9)),
            (17, number(totals, "milliseconds")),
        ] {
            let said: f64 = words[place].parse().unwrap();
            // The table has two digits at least.
            assert!((said - value).abs() <= 0.05 * value, "{line}: {said} for {value}");
        }
    }
}

const BLESS: &str = "SYNCBN_BLESS=1 cargo test --release --test e2e -- gpu::kernels";

#[test]
fn the_gpu_decides_waves_and_times() {
    let flags = |gpu: &str| format!("--batch 256 --mode train --gpu {gpu}");
    let model = fixture("dev/syncbnnet_w8.onnx");
    let [a100, h100, h200] = ["a100", "h100", "h200"].map(|gpu| report(&model, &flags(gpu)));
    assert_eq!(
        h200,
        report(&model, "--batch 256 --mode train"),
        "the default is h200"
    );
    for (report, multiprocessors) in [(&a100, 108), (&h100, 132), (&h200, 132)] {
        assert_eq!(report["multiprocessors"], multiprocessors);
        check_rows(step(report, "train"), f64::from(multiprocessors));
    }
    let milliseconds = |report: &Value| number(&step(report, "train")["totals"], "milliseconds");
    assert!(milliseconds(&a100) > milliseconds(&h100) && milliseconds(&h100) > milliseconds(&h200));
    // What is moved does not depend on it.
    let moved = |report: &Value| step(report, "train")["totals"]["read_bytes"].clone();
    assert_eq!(moved(&a100), moved(&h200));
}

/// A script that stands for an assembler: it finds 77 registers in every kernel, and notes the GPU that it is asked for.
const PTXAS: &str = r#"#!/bin/sh
for word; do
  case $word in
    -arch=*) echo "$word" > "$0.arch";;
    *.ptx) sed -n "s/.*\.entry \([a-z0-9_]*\).*/ptxas info : Compiling entry function '\1' for\nptxas info : Used 77 registers, used 0 barriers/p" "$word" >&2;;
  esac
  [ "$before" = -o ] && : > "$word"
  before=$word
done
exit 0
"#;

#[test]
fn registers_are_those_that_ptxas_finds_for_the_gpu() {
    let folder = tempfile::tempdir().unwrap();
    let ptxas = folder.path().join("ptxas");
    fs::write(&ptxas, PTXAS).unwrap();
    fs::set_permissions(&ptxas, fs::Permissions::from_mode(0o755)).unwrap();
    for (gpu, arch) in [("a100", "sm_80"), ("h200", "sm_90")] {
        let flags = format!("--target cuda --mode train --emit kernels-json --gpu {gpu}");
        let report = emit(&fixture(MLP), ptxas.to_str().unwrap(), &flags).ok().json();
        assert_eq!(report["ptxas"], arch);
        let asked = fs::read_to_string(folder.path().join("ptxas.arch")).unwrap();
        assert_eq!(asked.trim(), format!("-arch={arch}"));
        for row in launches(step(&report, "train")) {
            assert_eq!(row["registers"], 77, "{row}");
            // A warp takes 10 units of 256 of the 65536 registers, so a multiprocessor has 25 warps. Matrix products have
            // 36 KiB of shared memory and 1 KiB of the system's, in 164 or 228 KiB.
            let by_registers = 25 * 32 / row["block"].as_u64().unwrap();
            let by_memory = match (row["shared_bytes"].as_u64().unwrap(), gpu) {
                (36864, "a100") => 4,
                (36864, _) => 6,
                _ => 32,
            };
            let blocks = by_registers.min(by_memory);
            assert_eq!(row["blocks_per_multiprocessor"], blocks, "{row}");
        }
    }
}

/// An assembler that lies about and is too old must not fail what does without it; one that is named must do.
#[test]
fn registers_are_unknown_where_the_ptxas_that_lies_about_does_not_do() {
    let folder = tempfile::tempdir().unwrap();
    let ptxas = folder.path().join("ptxas");
    let script = "#!/bin/sh\necho \"ptxas fatal   : Value 'sm_90' is not defined for option 'gpu-name'\" >&2\nexit 1\n";
    fs::write(&ptxas, script).unwrap();
    fs::set_permissions(&ptxas, fs::Permissions::from_mode(0o755)).unwrap();
    let flags = "--target cuda --mode train --emit kernels-json";
    let path = std::env::var("PATH").unwrap_or_default();
    let output = Command::new(compiler())
        .env_remove("SYNCBN_PTXAS")
        .env_remove("CUDA_HOME")
        .env("PATH", format!("{}:{path}", folder.path().display()))
        .arg(fixture(MLP))
        .args(flags.split(' '))
        .args(["-o", "-"])
        .output()
        .unwrap();
    let found = Outcome {
        command: flags.to_string(),
        code: output.status.code(),
        stdout: output.stdout,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    };
    let words = [
        "warning: the registers of the kernels are unknown",
        "'sm_90' is not defined",
        "SYNCBN_PTXAS",
    ];
    let report = found.ok().says(&words).json();
    assert_eq!(report["ptxas"], Value::Null);
    for row in launches(step(&report, "train")) {
        assert_eq!(row["registers"], Value::Null, "{row}");
    }
    emit(&fixture(MLP), ptxas.to_str().unwrap(), flags)
        .exits(4)
        .says(&["error: ", "'sm_90' is not defined"]);
}

#[test]
fn what_has_no_report_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |flags: &str, words: &[&str]| {
        let model = fixture(MLP);
        let arguments = [
            &[model.to_str().unwrap(), "-o", "out"],
            &flags.split(' ').collect::<Vec<_>>()[..],
        ]
        .concat();
        compile(folder.path(), &arguments).exits(2).says(words);
        assert!(listing(folder.path()).is_empty());
    };
    let words = [
        "the report is about kernels for the target cuda",
        "add --target cuda",
    ];
    refused("--emit kernels --target cpu", &words);
    refused("--emit kernels-json --target cuda-emulated", &words);
    refused("--emit kernels --precision f64 --target cpu", &words);
    refused(
        "--emit kernels --target cuda --gpu v100",
        &["v100", "a100, h100, h200"],
    );
    refused("--target cuda --gpu a100", &["--gpu says", "--emit kernels"]);
}
