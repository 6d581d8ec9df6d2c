//! All errors of a stage are reported at once, in one shape, as text and as JSON; `syncbn-opt` has the exit codes
//! of the compiler.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::fixture;
use crate::support::net::Attribute::Int;
use crate::support::net::Net;
use crate::support::run::{Outcome, compile, run};

/// Runs the compiler on a file, as text and as JSON. Both must exit with `code`, and say of each place in `expected`
/// what stands beside it, with this severity, and nothing else.
#[track_caller]
fn all_at_once(file: &Path, flags: &[&str], code: i32, severity: &str, expected: &[(&str, &str)]) {
    let folder = tempfile::tempdir().unwrap();
    let arguments = [&[file.to_str().unwrap(), "-o", "out"], flags].concat();
    check(
        |more| compile(folder.path(), &[&arguments[..], more].concat()),
        code,
        severity,
        expected,
    );
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[track_caller]
fn check(run: impl Fn(&[&str]) -> Outcome, code: i32, severity: &str, expected: &[(&str, &str)]) {
    let human = run(&[]).exits(code).stderr;
    assert!(!human.contains('\u{1b}'), "colours on a pipe: {human}");
    for (place, words) in expected {
        let found = human
            .lines()
            .any(|line| line.starts_with(&format!("{severity}: {place}")) && line.contains(words));
        assert!(found, "{place}: {words} is not said in\n{human}");
    }
    let heads = ["error:", "unsupported:", "internal error:"];
    let count = human
        .lines()
        .filter(|line| heads.iter().any(|head| line.starts_with(head)))
        .count();
    assert_eq!(count, expected.len(), "{human}");

    let json = run(&["--message-format=json"]).exits(code).stderr;
    let messages: Vec<Value> = json
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let errors: Vec<&Value> = messages
        .iter()
        .filter(|message| !["warning", "note"].contains(&message["severity"].as_str().unwrap()))
        .collect();
    assert_eq!(errors.len(), expected.len(), "{json}");
    for (error, (place, words)) in errors.iter().zip(expected) {
        assert_eq!(error["severity"], severity, "{error}");
        assert!(
            error["place"].as_str().unwrap_or_default().starts_with(place),
            "{error}"
        );
        assert!(error["message"].as_str().unwrap().contains(words), "{error}");
        assert!(error["help"].is_string(), "it does not say what to do: {error}");
    }
}

/// A file of the given text in a folder of its own.
fn written(name: &str, content: impl AsRef<[u8]>) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, content).unwrap();
    (folder, path)
}

#[test]
fn of_the_import() {
    let mut net = Net::new(&[3, 6, 6]);
    let wrong = net.conv("x", &[4, 5, 3, 3], &[]);
    let a = net.node("GlobalAveragePool", &[&wrong], &[]);
    let b = net.node("Frobnicate", &["x"], &[]);
    let c = net.node("GroupNormalization", &["x"], &[("num_groups", Int(2))]);
    let (_folder, file) = written("m.onnx", net.finish(&[&a, &b, &c]));
    // One of the user's among them makes the exit code that of the user.
    let human = compile(file.parent().unwrap(), &[file.to_str().unwrap(), "-o", "out"]).exits(2);
    let lines = human
        .stderr
        .lines()
        .filter(|line| line.starts_with("error:") || line.starts_with("unsupported:"));
    assert_eq!(lines.count(), 3, "{}", human.stderr);
    human.says(&[
        "error: node \"conv",
        "expects 5 input channels",
        "Frobnicate",
        "GroupNormalization",
    ]);
}

#[test]
fn of_the_verifier() {
    let text = r#"graph "g" {
  %x = input "x" data : f32[batch, 2]
  %a = unary(%x) {function = leaky_relu(inf)} : f32[batch, 2] "first"
  %b = dropout(%a) {ratio = 2} : f32[batch, 2] "second"
  return output "y" %b
}
"#;
    let (_folder, file) = written("g.ir", text);
    all_at_once(
        &file,
        &["--emit", "graph-opt"],
        2,
        "error",
        &[
            ("node %1 \"first\" (unary)", "must be finite"),
            ("node %2 \"second\" (dropout)", "not in 0 to 1"),
        ],
    );
}

#[test]
fn of_the_loss() {
    let text = r#"graph "g" {
  %x = input "target" data : f32[batch, 2]
  %y = unary(%x) {function = relu} : f32[batch, 2]
  return output "y" %y
}
"#;
    let (_folder, file) = written("g.ir", text);
    all_at_once(
        &file,
        &["--emit", "graph-opt", "--loss-output", "z"],
        2,
        "error",
        &[
            ("input \"target\"", "keeps for the target"),
            ("--loss-output z", "no output \"z\""),
        ],
    );
}

/// What has no derivative in `passes/differentiate/lowered-twice.ir`, from the loss on.
const LOWERED: [(&str, &str); 6] = [
    ("node \"bn2\" (normalize)", "already lowered"),
    ("node \"bn2\" (batch_norm_finalize)", "already lowered"),
    ("node \"bn2\" (moments)", "already lowered"),
    ("node \"bn1\" (normalize)", "already lowered"),
    ("node \"bn1\" (batch_norm_finalize)", "already lowered"),
    ("node \"bn1\" (moments)", "already lowered"),
];

#[test]
fn of_the_differentiation() {
    all_at_once(
        &fixture("passes/differentiate/lowered-twice.ir"),
        &[
            "--emit",
            "graph-opt",
            "--passes",
            "differentiate",
            "--mode",
            "train",
        ],
        3,
        "unsupported",
        &LOWERED,
    );
}

#[test]
fn of_the_lowering() {
    let text = r#"graph "g" {
  %x = input "x" data : f32[batch, 2, 3, 3]
  %a = cast(%x) {dtype = bf16} : bf16[batch, 2, 3, 3] "first"
  %b = unary(%a) {function = relu} : bf16[batch, 2, 3, 3] "second"
  %c = unary(%b) {function = relu} : bf16[batch, 2, 3, 3] "third"
  %d = cast(%c) {dtype = f32} : f32[batch, 2, 3, 3] "fourth"
  return output "y" %d
}
"#;
    let (_folder, file) = written("g.ir", text);
    let places = [
        ("first", "cast"),
        ("second", "unary"),
        ("third", "unary"),
        ("fourth", "cast"),
    ];
    let expected = places.map(|(name, op)| format!("node \"{name}\" ({op})"));
    let expected: Vec<(&str, &str)> = expected
        .iter()
        .map(|place| (place.as_str(), "does not compute with bf16"))
        .collect();
    let flags = ["--emit", "mlir", "--mode", "infer", "--passes", "plan-memory"];
    all_at_once(&file, &flags, 3, "unsupported", &expected);
}

#[test]
fn of_the_flags() {
    let expected = [
        ("--passes frob", "no pass"),
        ("--skip foo", "no pass"),
        ("--stop-after bar", "no pass"),
    ];
    let flags = ["--passes", "frob,train", "--skip", "foo", "--stop-after", "bar"];
    all_at_once(&fixture("dev/mlp_bn1d.onnx"), &flags, 2, "error", &expected);
}

fn opt(arguments: &[&str]) -> Outcome {
    run(
        Path::new(env!("CARGO_BIN_EXE_syncbn-opt")),
        Path::new("."),
        arguments,
    )
}

#[test]
fn syncbn_opt_has_the_exit_codes_and_the_shape_of_the_compiler() {
    let refused = |arguments: &[&str], code: i32, severity: &str, expected: &[(&str, &str)]| {
        check(|more| opt(&[arguments, more].concat()), code, severity, expected);
    };
    let twice = fixture("passes/differentiate/lowered-twice.ir");
    let twice = twice.to_str().unwrap();
    refused(&[twice, "--passes=differentiate"], 3, "unsupported", &LOWERED);
    refused(
        &[twice, "--passes=frob", "--skip=foo"],
        2,
        "error",
        &[("--passes frob", "no pass"), ("--skip foo", "no pass")],
    );
    refused(
        &["no_such.ir", "--passes=clean"],
        2,
        "error",
        &[("", "cannot read no_such.ir")],
    );
    refused(&[twice, "--frob"], 2, "error", &[("", "unknown option --frob")]);
    let (_folder, file) = written("g.ir", "graph \"g\" {\n  %0 = no_such_op() : f32[1]\n}\n");
    refused(
        &[file.to_str().unwrap()],
        2,
        "error",
        &[("line 2, column 8", "no_such_op")],
    );
}

#[test]
fn syncbn_opt_shows_what_the_compiler_shows() {
    let file = fixture("passes/differentiate/linear.ir");
    let file = file.to_str().unwrap();
    let plain = opt(&[file, "--passes=clean"]).ok();
    assert!(plain.stderr.is_empty(), "{}", plain.stderr);
    syncbn_ir::parse(plain.text()).unwrap();
    let timed = opt(&[file, "--passes=clean", "--skip=fold-constants", "--verbose"]).ok();
    let names: Vec<&str> = timed
        .stderr
        .lines()
        .filter_map(|line| line.split(": ").next())
        .collect();
    assert_eq!(names, ["canonicalize", "canonicalize", "recognize-composites"]);
    assert!(
        timed.stderr.lines().all(|line| line.ends_with(" ms")),
        "{}",
        timed.stderr
    );
    let all = opt(&[file, "--passes=clean", "--print-ir-after-all"]).ok();
    assert_eq!(all.stderr.matches("// after ").count(), 4);
    let one = opt(&[
        file,
        "--passes=clean",
        "--print-ir-after=fold-constants",
        "--stop-after=fold-constants",
    ])
    .ok();
    assert_eq!(one.stderr.matches("// after ").count(), 1);

    // The compiler's own flags of the same names.
    let folder = tempfile::tempdir().unwrap();
    let model = fixture("dev/mlp_bn1d.onnx");
    let flags = [
        model.to_str().unwrap(),
        "-o",
        "-",
        "--emit",
        "graph-opt",
        "--passes",
        "clean",
        "-v",
    ];
    let compiler = |more: &[&str]| compile(folder.path(), &[&flags[..], more].concat()).ok().stderr;
    let text = compiler(&["--skip", "fold-constants"]);
    let times = text.lines().filter(|line| line.contains(" changes, ")).count();
    // For training and for inference.
    assert_eq!(times, 6, "{text}");
    assert_eq!(
        compiler(&["--print-ir-after-all"]).matches("// after ").count(),
        8
    );
    assert_eq!(
        compiler(&["--print-ir-after", "canonicalize"])
            .matches("// after ")
            .count(),
        4
    );
    assert_eq!(
        compiler(&["--stop-after", "canonicalize"])
            .matches(" changes, ")
            .count(),
        6
    );
    for help in [
        compile(folder.path(), &["--pass-help"]).ok(),
        opt(&["--pass-help"]).ok(),
    ] {
        for word in ["bn-to-syncbn", "Pipelines:", "train"] {
            assert!(help.text().contains(word), "{word}");
        }
    }
}
