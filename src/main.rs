//! `syncbn-compile`: ONNX to executable.

fn main() -> std::process::ExitCode {
    syncbn_compile::cli::main()
}
