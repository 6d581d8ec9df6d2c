//! Malformed and borderline files through the compiler: a clear error or warning, never a crash.

use crate::support::run::{compile, listing};
use crate::support::{fixture, index};

#[test]
fn every_hostile_file_gets_what_its_index_says() {
    let cases = index("hostile");
    let folder = tempfile::tempdir().unwrap();
    let mut failures = Vec::new();
    for case in cases.as_array().unwrap() {
        let file = case["file"].as_str().unwrap();
        if !file.ends_with(".onnx") {
            continue;
        }
        let model = fixture(&format!("hostile/{file}"));
        let outcome = compile(folder.path(), &[model.to_str().unwrap(), "-o", "out.bin"]);
        let written = listing(folder.path());
        let stderr = outcome.stderr.to_lowercase();
        let words = case["keywords"].as_array().unwrap();
        let said = words
            .iter()
            .any(|w| stderr.contains(&w.as_str().unwrap().to_lowercase()));
        let refused = matches!(outcome.code, Some(2 | 3));
        let accepted = outcome.code == Some(0);
        let note = case["note"].as_str().unwrap();
        let fits = match case["outcome"].as_str().unwrap() {
            "accept" => accepted,
            "warn" => (refused || accepted && stderr.contains("warning:")) && said,
            "error" if note.starts_with("error, or accept") && accepted => true,
            "error" => refused && said,
            other => panic!("{file}: {other}"),
        };
        let clean = if accepted { vec!["out.bin"] } else { Vec::new() };
        if !fits || written != clean {
            failures.push(format!(
                "{file}: {} with {words:?} gave {:?}, left {written:?}\n{}",
                case["outcome"], outcome.code, outcome.stderr
            ));
        }
        if accepted {
            std::fs::remove_file(folder.path().join("out.bin")).unwrap();
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
