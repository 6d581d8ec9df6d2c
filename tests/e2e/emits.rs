//! The text forms of a compilation.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::support::fixture;
use crate::support::run::{compile, listing};

/// What `--emit LEVEL -o -` prints, for one processor whatever the machine is.
fn emit(level: &str, precision: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let model = fixture("dev/syncbnnet_w4.onnx");
    let arguments = [
        model.to_str().unwrap(),
        "--cpu",
        "x86-64-v3",
        "--emit",
        level,
        "-o",
        "-",
        "--precision",
        precision,
    ];
    let outcome = compile(folder.path(), &arguments).ok();
    assert!(listing(folder.path()).is_empty());
    outcome.text().to_string()
}

#[track_caller]
fn has(text: &str, words: &[&str]) {
    for word in words {
        assert!(
            text.contains(word),
            "\"{word}\" is not in\n{}",
            &text[..text.len().min(3000)]
        );
    }
}

/// LLVM's time grows faster than a function does.
#[test]
fn no_function_of_a_step_is_long() {
    let mlir = emit("mlir", "f32");
    let functions: Vec<&str> = mlir.split("\n  llvm.func ").skip(1).collect();
    let parts = functions
        .iter()
        .filter(|f| f.starts_with("internal @syncbn_train_step."));
    let parts = parts.count();
    assert!(parts > 1, "{parts} parts");
    for function in functions {
        let calls = function.lines().filter(|line| line.contains("llvm.call @"));
        let others = ["@syncbn_rt_trace", "@syncbn_team_barrier"];
        let calls = calls
            .filter(|line| !others.iter().any(|other| line.contains(other)))
            .count();
        let name = function.lines().next().unwrap_or_default();
        assert!(calls <= 64 + parts, "{calls} calls in {name}");
    }
}

#[test]
fn schedules_are_listed_with_what_else_there_is() {
    let text = emit("schedule", "f32");
    has(
        &text,
        &[
            "schedules of main_graph.train, batch 32",
            "schedules of main_graph.infer, batch 32",
            "conv_backward_weight \"",
            ":filter8 -> f32[batch, ",
            "  * ",
            " us ",
            "direct(lanes = 8, ",
            "pointwise(lanes = 8, ",
            "predicted in all: ",
        ],
    );
    assert!(emit("schedule", "f64").contains("direct(lanes = 4, "));
}

#[test]
fn schedules_are_overridden_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let model = fixture("dev/syncbnnet_w4.onnx");
    let report = |more: &[&str]| {
        let given = [model.to_str().unwrap(), "--emit", "schedule", "-o", "-"];
        compile(folder.path(), &[&given, more].concat())
    };
    let text = report(&["--cpu", "x86-64-v3"]).ok().text().to_string();
    let stem = text.split('"').nth(1).unwrap().to_string();
    let wanted = "direct(lanes = 8, pixels = 3, vectors = 1, rows = 1)";
    let asked = format!("{stem}={wanted}");
    let text = report(&["--schedule", &asked]).ok().text().to_string();
    assert!(
        text.lines()
            .any(|line| line.starts_with("  * ") && line.ends_with(wanted)),
        "{text}"
    );
    for (more, expected) in [
        (
            ["--schedule", "no-such=general"],
            "no convolution and no matrix product has this name",
        ),
        (["--schedule", "stem"], "expected NODE=SCHEDULE"),
    ] {
        report(&more).exits(2).says(&[expected]);
    }
    let on_gpu = report(&["--target", "cuda"]).ok().text().to_string();
    let words = [
        "train, batch 32, on a GPU in tf32",
        "implicit_gemm(rows = ",
        " cycles of an A100",
    ];
    has(&on_gpu, &words);
    assert!(!on_gpu.contains("direct("), "{on_gpu}");
    let refused = report(&["--target", "cuda", "--schedule", &asked]).exits(2);
    refused.says(&["schedule direct is for none of the targets"]);
}

#[test]
fn graphs_parse_back_to_the_same_text() {
    let graph = emit("graph", "f32");
    has(
        &graph,
        &["batch_norm", "conv", "f32[batch, 3, 16, 16]", "stem.conv.weight"],
    );
    let parsed = syncbn_ir::parse(&graph).unwrap();
    assert_eq!(syncbn_ir::print(&parsed), graph);

    let optimized = emit("graph-opt", "f64");
    has(
        &optimized,
        &["all_reduce", "f64[batch, 3, 16, 16]", "gradient \"fc.weight\""],
    );
    // The training graph and the inference graph stand one after the other.
    let graphs: Vec<&str> = optimized
        .split_inclusive("\n}\n")
        .filter(|g| !g.trim().is_empty())
        .collect();
    assert_eq!(graphs.len(), 2, "{optimized}");
    for graph in graphs {
        let parsed = syncbn_ir::parse(graph).unwrap();
        assert_eq!(syncbn_ir::print(&parsed).trim(), graph.trim());
    }
}

/// The golden test of the passes shows what each fused node is, around one all-reduce.
#[test]
fn the_optimised_graph_is_that_of_the_golden_test() {
    let folder = tempfile::tempdir().unwrap();
    let model = fixture("dev/syncbnnet_small.onnx");
    let flags =
        "--emit graph-opt -o - --mode train --target cpu --cpu x86-64-v3 --batch 8 --stop-after schedule";
    let arguments = [
        &[model.to_str().unwrap()],
        &flags.split(' ').collect::<Vec<_>>()[..],
    ]
    .concat();
    let outcome = compile(folder.path(), &arguments).ok();
    let golden = std::fs::read_to_string(fixture("passes/pipelines/syncbnnet.expect")).unwrap();
    let named = golden.replacen("graph \"syncbnnet_small\"", "graph \"main_graph.train\"", 1);
    let lines = |text: &str| text.trim().lines().map(str::to_string).collect::<Vec<_>>();
    assert_eq!(lines(outcome.text()), lines(&named));
}

#[test]
fn mlir_is_accepted_by_mlir_opt() {
    let text = emit("mlir", "f32");
    has(&text, &["scf.for", "vector<8xf32>", "arith.", "llvm.func"]);
    let dialect = emit("mlir-llvm", "f32");
    has(&dialect, &["llvm.func", "llvm.intr.fma"]);
    assert!(!dialect.contains("scf.for"));
    let program = mlir_opt().expect("mlir-opt of LLVM 22 is installed (scripts/setup)");
    for text in [text, dialect] {
        let mut child = Command::new(program)
            .args(["--verify-each", "-o", "/dev/null"])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

fn mlir_opt() -> Option<&'static str> {
    let names = ["mlir-opt-22", "/usr/lib/llvm-22/bin/mlir-opt"];
    names.into_iter().find(|name| {
        let version = Command::new(name).arg("--version").stdout(Stdio::null()).status();
        version.is_ok_and(|s| s.success())
    })
}

#[test]
fn llvm_and_assembly_define_the_entry_points() {
    let llvm = emit("llvm", "f64");
    has(&llvm, &["target triple = \"x86_64", "define", "<4 x double>"]);
    let assembly = emit("asm", "f32");
    has(&assembly, &[".text", ".globl", "vfmadd"]);
}

#[test]
fn an_object_file_is_an_object_file() {
    let folder = tempfile::tempdir().unwrap();
    let model = fixture("dev/mlp_bn1d.onnx");
    compile(
        folder.path(),
        &[model.to_str().unwrap(), "--emit", "obj", "-o", "m.o"],
    )
    .ok();
    let bytes = std::fs::read(folder.path().join("m.o")).unwrap();
    assert_eq!(bytes[..4], *b"\x7fELF");
    // The type of the file at byte 16: 1 is a relocatable object.
    assert_eq!(bytes[16], 1);
}

#[test]
fn gpus_multiply_in_every_direction_on_tensor_cores() {
    let folder = tempfile::tempdir().unwrap();
    for (name, precision) in [("syncbnnet_w4", "tf32"), ("syncbnnet_w8", "bf16")] {
        let model = fixture(&format!("dev/{name}.onnx"));
        let arguments = [
            model.to_str().unwrap(),
            "--target",
            "cuda",
            "--precision",
            precision,
            "--emit",
            "mlir",
            "-o",
            "-",
        ];
        let text = compile(folder.path(), &arguments).ok().text().to_string();
        let operands = format!("multiplicandAPtxType = #nvvm.mma_type<{precision}>");
        for direction in ["@conv_", "@conv_backward_data_", "@conv_backward_weight_"] {
            let kernels = text.split("llvm.func ").filter(|f| f.starts_with(direction));
            let multiplying = kernels.filter(|f| f.contains("nvvm.mma.sync") && f.contains(&operands));
            assert!(multiplying.count() > 0, "{direction} in {precision}");
        }
    }
}
