//! What MLIR's verifier accepts of the nccl dialect.

use std::io::Write;
use std::process::{Command, Stdio};

const VALID: &str = r#"func.func @f(%comm: !nccl.comm, %data: !llvm.ptr, %count: i64) {
  "nccl.all_reduce"(%comm, %data, %data, %count, %data) {datatype = f32, redop = "sum"} : (!nccl.comm, !llvm.ptr, !llvm.ptr, i64, !llvm.ptr) -> ()
  return
}
"#;

/// Whether MLIR accepts a module, and what it says.
fn verify(text: &str) -> (bool, String) {
    let dialect = concat!(env!("CARGO_MANIFEST_DIR"), "/crates/mlir/src/gpu/nccl.irdl.mlir");
    let prefix = std::env::var("LLVM_SYS_221_PREFIX").unwrap_or_else(|_| "/usr/lib/llvm-22".to_string());
    let mut child = Command::new(format!("{prefix}/bin/mlir-opt"))
        .arg(format!("--irdl-file={dialect}"))
        .args(["-o", "/dev/null"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("mlir-opt of LLVM 22 is installed (scripts/setup)");
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    (
        output.status.success(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

#[test]
fn the_verifier_refuses_what_nccl_is_not_asked_for() {
    let (accepted, message) = verify(VALID);
    assert!(accepted, "{message}");
    for (from, to, words) in [
        (
            "datatype = f32",
            "datatype = i8",
            "'i8' does not satisfy the constraint",
        ),
        ("\"sum\"", "\"max\"", "expected '\"sum\"'"),
        ("i64", "i32", "expected 'i64' but got 'i32'"),
        ("!nccl.comm", "!llvm.ptr", "!llvm.ptr"),
        (", redop = \"sum\"", "", "redop"),
    ] {
        let (accepted, message) = verify(&VALID.replace(from, to));
        assert!(!accepted && message.contains(words), "{to}: {message}");
    }
}
