//! Executables with other kernels than the compiler's.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::run::compiler;

/// The compiler's object of kernels.
const KERNELS: &str = "gpu-emulated.o";
/// The object of those that change.
const CHANGED: &str = "changed.o";

/// The inputs of a link, kept by a linker that copies them.
pub struct Link {
    folder: tempfile::TempDir,
    arguments: Vec<String>,
}

impl Link {
    /// Compiles a model with the given flags, and these kernels, which others may take the place of.
    pub fn new(model: &Path, flags: &[&str], kernels: &str) -> Link {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path().to_str().unwrap();
        let linker = folder.path().join("linker");
        let script = format!(
            "#!/bin/sh\nfor a; do case $a in *.o|*.a) cp \"$a\" {at}/;; esac; done\n\
             printf '%s\\n' \"$@\" > {at}/arguments\nexec cc \"$@\"\n"
        );
        fs::write(&linker, script).unwrap();
        fs::set_permissions(&linker, fs::Permissions::from_mode(0o755)).unwrap();
        let status = Command::new(compiler())
            .env("CC", &linker)
            .arg(model)
            .args(flags)
            .arg("-o")
            .arg(folder.path().join("own.bin"))
            .status()
            .unwrap();
        assert!(status.success());
        let arguments = fs::read_to_string(folder.path().join("arguments")).unwrap();
        let link = Link {
            arguments: arguments.lines().map(str::to_string).collect(),
            folder,
        };
        link.assemble(kernels, KERNELS);
        link
    }

    /// Links with these kernels in place of those of the same names.
    pub fn with(&self, ir: &str) -> PathBuf {
        self.assemble(ir, CHANGED);
        self.linked(&[CHANGED, KERNELS])
    }

    /// Links without changes.
    pub fn unchanged(&self) -> PathBuf {
        self.linked(&[KERNELS])
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn assemble(&self, ir: &str, object: &str) {
        fs::write(self.at("kernels.ll"), ir).unwrap();
        let prefix = std::env::var("LLVM_SYS_221_PREFIX").unwrap_or_else(|_| "/usr/lib/llvm-22".to_string());
        // Without passes, as at -O0, whose code generator moves floats that come back in registers of the x87 unit by an
        // instruction that does not have all the registers it is given (LLVM 22.1, with AVX-512).
        let clang = Command::new(format!("{prefix}/bin/clang"))
            .args(["-c", "-O1", "-Xclang", "-disable-llvm-passes", "-fPIC"])
            .args(["-Wno-override-module", "-o"])
            .args([self.at(object), self.at("kernels.ll")])
            .output()
            .expect("clang of LLVM 22 is installed (scripts/setup)");
        assert!(
            clang.status.success(),
            "{}",
            String::from_utf8_lossy(&clang.stderr)
        );
    }

    /// Links with these objects in place of the kernels'.
    fn linked(&self, objects: &[&str]) -> PathBuf {
        let output = self.at("mutant.bin");
        let mut last = "";
        let mut command = Command::new("cc");
        for argument in &self.arguments {
            match Path::new(argument).file_name().and_then(|name| name.to_str()) {
                _ if last == "-o" => command.arg(&output),
                Some(KERNELS) => command.args(objects.iter().map(|name| self.at(name))),
                Some(name) if name.ends_with(".o") || name.ends_with(".a") => command.arg(self.at(name)),
                _ => command.arg(argument),
            };
            last = argument;
        }
        assert!(command.status().unwrap().success());
        output
    }
}
