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

/// Of the import, of the passes and of the driver.
#[test]
fn warnings_of_all_stages_say_where_and_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let text = "graph \"g\" {\n  %x = input \"x\" data : f32[batch, 4]\n  \
                %w = parameter \"w\" frozen kaiming_normal(4) : f32[3, 4]\n  \
                %1 = dropout(%x) {ratio = 0.5} : f32[batch, 4] \"drop\"\n  \
                %2 = matmul(%1, %w) {transpose_a = false, transpose_b = true} : f32[batch, 3] \"fc\"\n  \
                return output \"y\" %2\n}\n";
    std::fs::write(folder.path().join("g.ir"), text).unwrap();
    let model = fixture("dev/mlp_bn1d.onnx");
    let said = |network: &str, flags: &[&str]| -> Vec<serde_json::Value> {
        let all = [
            &[
                network,
                "-o",
                "m.bin",
                "--target",
                "cpu",
                "--message-format",
                "json",
            ],
            flags,
        ]
        .concat();
        let outcome = compile(folder.path(), &all).ok();
        let lines = outcome.stderr.lines().map(|l| serde_json::from_str(l).unwrap());
        lines
            .filter(|l: &serde_json::Value| l["severity"] == "warning")
            .collect()
    };
    let of_graph = said("g.ir", &[]);
    let of_flag = said(model.to_str().unwrap(), &["--freeze", "nope*"]);
    for (warnings, place, message, help) in [
        (
            &of_graph,
            Some("node \"drop\" (dropout)"),
            "random dropout is not supported",
            "ratio 0",
        ),
        (&of_graph, None, "no parameter is trained", "--train"),
        (
            &of_flag,
            Some("--freeze nope*"),
            "matches no parameter",
            "--emit graph",
        ),
    ] {
        let is = |w: &&serde_json::Value| w["message"].as_str().unwrap().contains(message);
        let found = warnings.iter().find(is);
        let warning = found.unwrap_or_else(|| panic!("no \"{message}\" in {warnings:#?}"));
        assert_eq!(warning["place"].as_str(), place, "{warning}");
        assert!(warning["help"].as_str().unwrap().contains(help), "{warning}");
    }
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
