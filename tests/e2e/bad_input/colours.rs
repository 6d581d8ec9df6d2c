//! Messages have colours where a person reads them, and only there.

use std::process::Command;

use crate::support::run::{compile, compiler};

/// What an ANSI colour begins with.
const ESCAPE: &str = "\x1b[";

#[test]
fn colours_are_for_terminals() {
    let folder = tempfile::tempdir().unwrap();
    let piped = compile(folder.path(), &["missing.onnx", "-o", "m.bin"]);
    assert!(piped.stderr.contains("error: "), "{}", piped.stderr);
    assert!(!piped.stderr.contains(ESCAPE), "{}", piped.stderr);
    let on_terminal = |no_color: &str| {
        let command = format!("{} missing.onnx -o m.bin", compiler().display());
        // It gives its command a terminal.
        let output = Command::new("script")
            .args(["-qec", &command, "/dev/null"])
            .env("NO_COLOR", no_color)
            .current_dir(folder.path())
            .output()
            .expect("script of util-linux is installed, as Debian has it");
        String::from_utf8(output.stdout).unwrap()
    };
    let said = on_terminal("");
    assert!(said.contains("\x1b[1;31merror"), "{said:?}");
    let said = on_terminal("1");
    assert!(said.contains("error: ") && !said.contains(ESCAPE), "{said:?}");
}
