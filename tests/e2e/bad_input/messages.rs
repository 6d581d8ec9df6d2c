//! The shape of messages, and what is said of graphs in text form.

use crate::support::fixture;
use crate::support::run::compile;

#[test]
fn messages_are_json_on_request() {
    let folder = tempfile::tempdir().unwrap();
    let model = fixture("hostile/unknown_op.onnx");
    let flags = [model.to_str().unwrap(), "-o", "m.bin", "--message-format", "json"];
    let outcome = compile(folder.path(), &flags).exits(3);
    let message: serde_json::Value = serde_json::from_str(outcome.stderr.trim()).unwrap();
    assert_eq!(message["severity"], "unsupported");
    assert!(
        message["place"].as_str().unwrap().contains("Frobnicate"),
        "{message}"
    );
    assert!(
        message["message"].as_str().unwrap().contains("not supported"),
        "{message}"
    );

    // A warning has the same shape, and the compilation succeeds.
    let folded = fixture("recipes/folded.onnx");
    let flags = [
        folded.to_str().unwrap(),
        "-o",
        "m.bin",
        "--message-format",
        "json",
    ];
    let outcome = compile(folder.path(), &flags).ok();
    let lines: Vec<serde_json::Value> = outcome
        .stderr
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    let warning = lines.iter().find(|l| l["severity"] == "warning").unwrap();
    assert!(
        warning["help"].as_str().unwrap().contains("optimize=False"),
        "{warning}"
    );
}

#[test]
fn a_graph_text_with_a_mistake_names_the_line() {
    let folder = tempfile::tempdir().unwrap();
    let text =
        "graph \"g\" {\n  %0 = input \"x\" data : f32[batch, 3]\n  %1 = no_such_op(%0) : f32[batch, 3]\n}\n";
    std::fs::write(folder.path().join("g.ir"), text).unwrap();
    compile(folder.path(), &["g.ir", "-o", "m.bin"]).exits(2).says(&[
        "g.ir",
        "no_such_op",
        "3",
        "docs/ir.md",
    ]);
}

#[test]
fn flags_of_the_import_do_not_apply_to_a_graph_text() {
    let folder = tempfile::tempdir().unwrap();
    let text = "graph \"g\" {\n  %0 = input \"x\" data : f32[batch, 3]\n  return output \"y\" %0\n}\n";
    std::fs::write(folder.path().join("g.ir"), text).unwrap();
    for flag in [
        ["--precision", "f64"],
        ["--freeze", "w"],
        ["--train", "w"],
        ["--input-shape", "x=5"],
    ] {
        let flags = [&["g.ir", "-o", "-", "--emit", "graph"], &flag[..]].concat();
        compile(folder.path(), &flags)
            .exits(2)
            .says(&[flag[0], "ONNX files only"]);
    }
}
