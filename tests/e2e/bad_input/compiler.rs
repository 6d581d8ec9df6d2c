//! Files and flags that the compiler refuses.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use crate::support::fixture;
use crate::support::net::Attribute::{self, Int, Ints};
use crate::support::net::Net;
use crate::support::run::{compile, compiler, listing};

/// Compiles a file of the fixtures and checks that it is refused, said why, and that nothing is left.
#[track_caller]
fn refused(file: &str, flags: &[&str], code: i32, words: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let model = fixture(file);
    let arguments = [&[model.to_str().unwrap(), "-o", "out.bin"], flags].concat();
    compile(folder.path(), &arguments).exits(code).says(words);
    assert!(listing(folder.path()).is_empty(), "{:?}", listing(folder.path()));
}

const MLP: &str = "dev/mlp_bn1d.onnx";

#[test]
fn damaged_and_foreign_files() {
    refused(
        "hostile/truncated_half.onnx",
        &[],
        2,
        &["error:", "decode", "truncated"],
    );
    refused(
        "hostile/truncated_last_byte.onnx",
        &[],
        2,
        &["error:", "decode", "truncated"],
    );
    refused("dev/index.json", &[], 2, &["error:", "decode", "not ONNX"]);
    refused("dev", &[], 2, &["error:", "cannot read", "directory"]);
    refused(
        "no_such_file.onnx",
        &[],
        2,
        &["error:", "no_such_file.onnx", "No such file"],
    );
}

#[test]
fn networks_that_cannot_be_compiled() {
    refused(
        "hostile/unknown_op.onnx",
        &[],
        3,
        &["unsupported:", "Frobnicate", "\"sig\"", "opset"],
    );
    let words = ["error:", "\"conv\"", "expects 5 input channels", "found 3"];
    refused("hostile/conv_channel_mismatch.onnx", &[], 2, &words);
    let words = ["\"w\"", "\"g\"", "export_params", "--init"];
    refused("hostile/weights_only_as_inputs.onnx", &[], 2, &words);
}

#[test]
fn shapes_that_do_not_fit() {
    let words = ["node_linear", "(Gemm)", "21", "20"];
    refused(MLP, &["--input-shape", "x=21"], 2, &words);
    refused(
        MLP,
        &["--input-shape", "z=20"],
        2,
        &["--input-shape z", "no such input", "x"],
    );
    refused(
        MLP,
        &["--input-shape", "x=0"],
        2,
        &["--input-shape", "x=3x224x224"],
    );

    let mut net = Net::new(&[3, 6, 6]);
    let one = net.conv("x", &[4, 3, 3, 3], &[]);
    let two = net.conv("x", &[4, 3, 3, 3], &[("pads", Ints(&[1, 1, 1, 1]))]);
    let sum = net.node("Add", &[&one, &two], &[]);
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("m.onnx"), net.finish(&[&sum])).unwrap();
    compile(folder.path(), &["m.onnx", "-o", "out.bin"])
        .exits(2)
        .says(&[
            "error:",
            "\"add3\"",
            "(Add)",
            "[batch, 4, 4, 4]",
            "[batch, 4, 6, 6]",
        ]);
    assert_eq!(listing(folder.path()), ["m.onnx"]);
}

#[test]
fn a_pool_with_a_window_of_padding_alone() {
    // Windows at 0 and 5, 1 and 6, ... of an input of 3 between 4 and 4 zeros: that at 1 and 6 lies beside it.
    let pool: [(&str, Attribute); 3] = [
        ("kernel_shape", Ints(&[2, 2])),
        ("dilations", Ints(&[5, 5])),
        ("pads", Ints(&[4, 4, 4, 4])),
    ];
    let mut net = Net::new(&[2, 3, 3]);
    let x = net.conv_bn_relu("x", &[4, 2, 1, 1], &[]);
    let x = net.node("MaxPool", &[&x], &pool);
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("m.onnx"), net.finish(&[&x])).unwrap();
    compile(folder.path(), &["m.onnx", "-o", "out.bin"])
        .exits(2)
        .says(&[
            "error:",
            "(MaxPool)",
            "axis 0 holds nothing but padding",
            "dilation 5",
        ]);
    assert_eq!(listing(folder.path()), ["m.onnx"]);
}

#[test]
fn what_is_not_supported_is_named() {
    let mut net = Net::new(&[3, 6, 6]);
    let x = net.conv("x", &[4, 3, 3, 3], &[]);
    let x = net.node("GroupNormalization", &[&x], &[("num_groups", Int(2))]);
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("m.onnx"), net.finish(&[&x])).unwrap();
    compile(folder.path(), &["m.onnx", "-o", "out.bin"])
        .exits(3)
        .says(&["unsupported:", "groupnormalization2", "GroupNormalization"]);
    assert_eq!(listing(folder.path()), ["m.onnx"]);
}

#[test]
fn flags_that_do_not_exist_or_do_not_fit() {
    for flag in ["--passes", "--skip", "--stop-after", "--print-ir-after"] {
        refused(MLP, &[flag, "frob"], 2, &["no pass \"frob\"", "bn-to-syncbn"]);
    }
    refused(MLP, &["--frob"], 2, &["--frob"]);
    refused(
        MLP,
        &["--bn", "group=0"],
        2,
        &["group=0", "sync, local, frozen, group=K"],
    );
    refused(MLP, &["--batch", "0"], 2, &["--batch"]);
    for precision in ["bf16", "tf32"] {
        let flags = ["--precision", precision, "--target", "cpu"];
        refused(MLP, &flags, 2, &["--precision", "the CPU has f32 and f64"]);
    }
    refused(
        MLP,
        &["--precision", "cpu=bf16"],
        2,
        &["--precision", "f32 and f64"],
    );
    refused(MLP, &["--cpu", "z80"], 2, &["--cpu", "x86-64-v3"]);
    refused(
        MLP,
        &["--target", "rocm"],
        2,
        &["--target", "cpu, cuda, cuda-emulated"],
    );
    refused(MLP, &["--emit", "ptx"], 2, &["--target cuda"]);
    refused(
        MLP,
        &["--target", "cuda", "--emit", "obj"],
        2,
        &["--emit obj", "cpu"],
    );
    refused(
        MLP,
        &["--precision", "cuda=f16"],
        2,
        &["--precision", "tf32, bf16 and f32"],
    );
    refused(MLP, &["--loss", "hinge"], 2, &["--loss", "cross-entropy, mse"]);
    refused(
        MLP,
        &["--loss-output", "nope"],
        2,
        &["--loss-output", "nope", "\"y\""],
    );
    refused(
        MLP,
        &["--stop-after", "canonicalize"],
        2,
        &["plan-memory", "graph-opt"],
    );
}

#[test]
fn a_pattern_that_matches_nothing_is_warned_of() {
    let folder = tempfile::tempdir().unwrap();
    let model = fixture(MLP);
    let arguments = [
        model.to_str().unwrap(),
        "--emit",
        "graph",
        "-o",
        "-",
        "--freeze",
        "nope*",
    ];
    compile(folder.path(), &arguments)
        .ok()
        .says(&["warning:", "--freeze nope*", "matches no parameter"]);
}

#[test]
fn outputs_that_cannot_be_written() {
    let folder = tempfile::tempdir().unwrap();
    let model = fixture(MLP);
    let model = model.to_str().unwrap();
    compile(folder.path(), &[model, "-o", "nowhere/out.bin"])
        .exits(2)
        .says(&["cannot write", "nowhere/out.bin", "existing folder"]);
    compile(folder.path(), &[model, "-o", "-"])
        .exits(2)
        .says(&["-o -", "text", "--emit"]);
    compile(folder.path(), &[model, "-o", "-", "--emit", "obj"])
        .exits(2)
        .says(&["-o -", "text", "--emit"]);
    std::fs::create_dir(folder.path().join("taken")).unwrap();
    compile(folder.path(), &[model, "-o", "taken"])
        .exits(2)
        .says(&["cannot write", "taken"]);
    assert_eq!(listing(folder.path()), ["taken"]);
    assert!(listing(&folder.path().join("taken")).is_empty());
}

#[test]
fn a_failure_leaves_an_earlier_output_alone() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.bin");
    std::fs::write(&out, "precious").unwrap();
    std::fs::set_permissions(&out, std::fs::Permissions::from_mode(0o600)).unwrap();
    let model = fixture("hostile/unknown_op.onnx");
    compile(folder.path(), &[model.to_str().unwrap(), "-o", "out.bin"]).exits(3);
    assert_eq!(std::fs::read_to_string(&out).unwrap(), "precious");
    assert_eq!(listing(folder.path()), ["out.bin"]);
}

#[test]
fn a_machine_without_a_linker_gets_exit_code_4() {
    for (linker, word) in [("/nonexistent/cc", "could not be run"), ("false", "failed")] {
        let folder = tempfile::tempdir().unwrap();
        let output = Command::new(compiler())
            .current_dir(folder.path())
            .args([fixture(MLP).to_str().unwrap(), "-o", "out.bin"])
            .env("CC", linker)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(4), "{text}");
        assert!(text.contains(linker) && text.contains(word), "{text}");
        assert!(listing(folder.path()).is_empty());
    }
}

#[test]
fn a_skipped_pass_that_training_needs_is_refused() {
    for pass in [
        "differentiate",
        "insert-gradient-all-reduce",
        "set-batch-norm-mode",
        "bn-to-syncbn",
    ] {
        refused(
            "dev/mlp_bn1d.onnx",
            &["--skip", pass],
            2,
            &[pass, "would not run", "--skip"],
        );
    }
    // A network without training needs none of it.
    let folder = tempfile::tempdir().unwrap();
    let model = fixture("dev/mlp_bn1d.onnx");
    let flags = [
        model.to_str().unwrap(),
        "-o",
        "m.bin",
        "--mode",
        "infer",
        "--skip",
        "differentiate",
    ];
    compile(folder.path(), &flags).ok();
}

#[test]
fn outputs_take_nothing_that_is_not_theirs() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("m.onnx");
    std::fs::copy(fixture(MLP), &model).unwrap();
    let before = std::fs::read(&model).unwrap();
    compile(folder.path(), &["m.onnx", "-o", "m.onnx"])
        .exits(2)
        .says(&["-o m.onnx", "the network itself"]);
    assert_eq!(std::fs::read(&model).unwrap(), before);

    // A link to a device leads to the device, which stays one.
    std::os::unix::fs::symlink("/dev/null", folder.path().join("null")).unwrap();
    compile(folder.path(), &["m.onnx", "-o", "null", "--emit", "graph"]).ok();
    assert!(!std::fs::metadata(folder.path().join("null")).unwrap().is_file());
}
