//! `--emit kernels`: a report of every launch of a step, as a table and as JSON.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::NETWORKS;
use crate::support::fixture;
use crate::support::run::{Outcome, compiler};

/// Compiles with an assembler, or with none where `ptxas` is empty: registers are unknown then.
pub fn emit(model: &Path, ptxas: &str, flags: &str) -> Outcome {
    let arguments: Vec<&str> = flags.split(' ').collect();
    let output = Command::new(compiler())
        .env("SYNCBN_PTXAS", ptxas)
        .arg(model)
        .args(&arguments)
        .args(["-o", "-"])
        .output()
        .unwrap();
    Outcome {
        command: format!("{} {flags}", model.display()),
        code: output.status.code(),
        stdout: output.stdout,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// The report of a network as JSON.
pub fn report(model: &Path, flags: &str) -> Value {
    emit(model, "", &format!("--target cuda --emit kernels-json {flags}"))
        .ok()
        .json()
}

/// A part of a report.
pub fn step<'r>(report: &'r Value, name: &str) -> &'r Value {
    let mut steps = report["steps"].as_array().unwrap().iter();
    let found = steps.find(|step| step["name"] == name);
    found.unwrap_or_else(|| panic!("the report has no part {name}"))
}

/// The launches of a part, in order.
pub fn launches(step: &Value) -> Vec<&Value> {
    let rows = step["rows"].as_array().unwrap();
    rows.iter().filter(|row| row["kind"] == "launch").collect()
}

/// A number of a row.
pub fn number(row: &Value, field: &str) -> f64 {
    row[field]
        .as_f64()
        .unwrap_or_else(|| panic!("{field} is no number in {row}"))
}

fn sum(rows: &[&Value], field: &str) -> f64 {
    rows.iter().map(|row| number(row, field)).sum()
}

/// A kernel with its blocks along x, where the host code has them as a constant, and along z.
type Launched = (String, Option<u64>, u64);

/// The launches of each host function of `--emit mlir`, in order.
fn launched_by_host(mlir: &str) -> BTreeMap<String, Vec<Launched>> {
    // `%c37_i64` is 37.
    let constant = |name: &str| {
        let digits = name.strip_prefix("%c")?.split('_').next()?;
        digits.parse().ok()
    };
    let mut launched: BTreeMap<String, Vec<Launched>> = BTreeMap::new();
    for function in mlir.split("llvm.func @").skip(1) {
        let name = function.split('(').next().unwrap();
        let lines = function.lines().filter(|line| line.contains("gpu.launch_func"));
        let launches = lines.map(|line| {
            let (_, rest) = line.split_once("@kernels::@").unwrap();
            let (kernel, rest) = rest.split_once(" blocks in (").unwrap();
            let blocks: Vec<&str> = rest.split(')').next().unwrap().split(", ").collect();
            (
                kernel.to_string(),
                constant(blocks[0]),
                constant(blocks[2]).unwrap(),
            )
        });
        launched.entry(name.to_string()).or_default().extend(launches);
    }
    launched
}

/// Every part lists the kernels that its host function launches, in order, with their blocks. How many there are.
#[track_caller]
pub fn check_launches(model: &Path, flags: &str) -> usize {
    let report = report(model, flags);
    let mlir = emit(model, "", &format!("--target cuda --emit mlir {flags}")).ok();
    let by_host = launched_by_host(mlir.text());
    let mut count = 0;
    for step in report["steps"].as_array().unwrap() {
        let functions: &[&str] = match step["name"].as_str().unwrap() {
            "train" => &["syncbn_gpu_train_step", "syncbn_gpu_update_sgd"],
            "prepare" => &["syncbn_gpu_infer_prepare"],
            "infer" => &["syncbn_gpu_infer_step"],
            other => panic!("there is no part {other}"),
        };
        let wanted: Vec<&Launched> = functions.iter().flat_map(|name| &by_host[*name]).collect();
        let rows = launches(step);
        let listed: Vec<Launched> = rows
            .iter()
            .zip(&wanted)
            .map(|(row, (_, across, _))| {
                let kernel = row["kernel"].as_str().unwrap().to_string();
                let blocks = |axis: usize| row["grid"][axis].as_u64().unwrap();
                (kernel, across.map(|_| blocks(0)), blocks(2))
            })
            .collect();
        assert!(
            listed.iter().eq(wanted.iter().copied()),
            "{} of {}",
            step["name"],
            model.display()
        );
        assert_eq!(rows.len(), wanted.len());
        count += rows.len();
    }
    count
}

#[test]
fn every_launch_of_the_host_code_is_listed_in_its_order() {
    for (name, precision) in [
        ("resnet18_narrow", "bf16"),
        ("densenet_like", "f32"),
        ("mlp_bn1d", "tf32"),
    ] {
        check_launches(
            &fixture(&format!("dev/{name}.onnx")),
            &format!("--precision cuda={precision}"),
        );
    }
}

/// What holds for the launches of any network.
#[track_caller]
pub fn check_rows(step: &Value, multiprocessors: f64) {
    let rows = launches(step);
    for row in &rows {
        let moved = number(row, "read_bytes") + number(row, "written_bytes");
        assert!(number(row, "least_bytes") <= moved, "{row}");
        assert!(
            number(row, "in_flight_bytes") <= number(row, "read_bytes"),
            "{row}"
        );
        let blocks: f64 = row["grid"]
            .as_array()
            .unwrap()
            .iter()
            .map(|n| n.as_f64().unwrap())
            .product();
        let filled = number(row, "waves") * number(row, "blocks_per_multiprocessor") * multiprocessors;
        assert!((filled - blocks).abs() < 1e-6 * blocks, "{row}");
        let threads = number(row, "blocks_per_multiprocessor") * number(row, "block");
        assert!(threads <= 2048.0 && number(row, "microseconds") > 1.0, "{row}");
    }
    let totals = &step["totals"];
    for field in ["read_bytes", "written_bytes", "least_bytes", "flop"] {
        assert_eq!(sum(&rows, field), number(totals, field), "{field}");
    }
    assert_eq!(rows.len() as f64, number(totals, "launches"));
    let milliseconds = sum(&rows, "microseconds") / 1e3;
    assert!((milliseconds - number(totals, "milliseconds")).abs() < 1e-9 * milliseconds);
}

/// What a stage leaves in scratch memory the next one reads, whole.
#[track_caller]
fn check_stages(step: &Value) {
    let rows = launches(step);
    for (i, merge) in rows.iter().enumerate().filter(|(_, row)| row["stage"] == "merge") {
        let partial = rows[i - 1];
        assert!(
            ["partial", "moments"]
                .iter()
                .any(|stage| partial["stage"] == *stage),
            "{merge}"
        );
        assert_eq!(partial["node"], merge["node"]);
        // The fewest bytes are operands and the results that are written that early.
        let early = number(partial, "least_bytes") - number(partial, "read_bytes");
        let scratch = number(partial, "written_bytes") - early;
        assert!(early >= 0.0 && scratch > 0.0, "{partial}");
        assert_eq!(number(merge, "read_bytes"), scratch, "{partial}");
    }
}

#[test]
fn rows_agree_with_each_other_and_with_the_totals() {
    for name in NETWORKS {
        let model = fixture(&format!("dev/{name}.onnx"));
        for precision in ["f32", "tf32", "bf16"] {
            let report = report(&model, &format!("--precision cuda={precision}"));
            assert_eq!(report["precision"], precision);
            for step in report["steps"].as_array().unwrap() {
                check_rows(step, number(&report, "multiprocessors"));
                check_stages(step);
            }
        }
    }
}

/// A small network.
pub const MLP: &str = "dev/mlp_bn1d.onnx";

/// The bytes of all-reduces follow from the network: 2C+1 moments of 48 channels in f64 for each BatchNorm, 2C sums in
/// its backward pass, and the gradients of 48*20, 48*48, 48, 10*48 and 10 parameters in f32 with the loss in f64. Those of
/// BatchNorm's scale and shift are its sums.
#[test]
fn collectives_stand_where_they_are_issued() {
    let report = report(&fixture(MLP), "--mode train");
    let rows = step(&report, "train")["rows"].as_array().unwrap();
    let sums: Vec<(f64, bool)> = rows
        .iter()
        .filter(|row| row["kind"] == "all_reduce")
        .map(|row| (number(row, "bytes"), row["gradients"] == true))
        .collect();
    let expected = [
        (776.0, false),
        (776.0, false),
        (768.0, false),
        (768.0, false),
        (15216.0, true),
    ];
    assert_eq!(sums, expected);
    let place = rows.iter().position(|row| row["kind"] == "all_reduce").unwrap();
    assert_eq!(rows[place - 1]["operator"], "moments");
    assert_eq!(rows[place + 1]["operator"], "batch_norm_finalize");
}

#[test]
fn modes_choose_the_parts() {
    for (mode, parts) in [
        ("train", &["train"][..]),
        ("infer", &["prepare", "infer"]),
        ("both", &["train", "prepare", "infer"]),
    ] {
        let report = report(&fixture(MLP), &format!("--mode {mode}"));
        let names: Vec<&str> = report["steps"]
            .as_array()
            .unwrap()
            .iter()
            .map(|step| step["name"].as_str().unwrap())
            .collect();
        assert_eq!(names, parts);
    }
}
