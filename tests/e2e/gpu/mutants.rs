//! Faults planted into kernels: the emulator, or the comparison of what a training step leaves, must notice each.
//!
//! The LLVM IR of the emulated kernels is taken as text, changed, assembled by clang and linked in place of the
//! compiler's own.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use syncbn_ir::Array;
use syncbn_ir::training::Generator;

use crate::support::compare::error;
use crate::support::executable::{Executable, Trained};
use crate::support::files::{Column, write_npz};
use crate::support::fixture;
use crate::support::run::{compile, compiler};

/// A kernel in the text, from its `define` to its closing brace.
struct Kernel<'t> {
    name: &'t str,
    lines: Vec<(usize, &'t str)>,
}

fn kernels(text: &str) -> Vec<Kernel<'_>> {
    let mut all = Vec::new();
    let mut current: Option<Kernel> = None;
    for (i, line) in text.lines().enumerate() {
        if line.starts_with("define internal") && line.contains("void @") {
            let name = line.split("void @").nth(1).unwrap().split('(').next().unwrap();
            current = Some(Kernel {
                name,
                lines: Vec::new(),
            });
        } else if line == "}" {
            all.extend(current.take());
        } else if let Some(kernel) = &mut current {
            kernel.lines.push((i, line));
        }
    }
    all
}

/// A planted fault: what it is, and the lines that change.
struct Mutant {
    what: String,
    changes: Vec<(usize, String)>,
}

impl Kernel<'_> {
    fn mutant(&self, what: &str, changes: Vec<(usize, String)>) -> Option<Mutant> {
        let what = format!("{}: {what}", self.name);
        (!changes.is_empty()).then_some(Mutant { what, changes })
    }

    /// The loop over all threads' elements takes one element too many: its guard and its end compare with <=.
    fn bound(&self) -> Option<Mutant> {
        let compares: Vec<_> = self
            .lines
            .iter()
            .filter(|(_, l)| l.contains("icmp slt i32"))
            .collect();
        let ends = [compares.first()?, compares.last()?];
        let changed = ends.map(|(i, line)| (*i, line.replace("icmp slt", "icmp sle")));
        self.mutant("one element too many", changed.into())
    }

    /// The last loop inside takes one turn less.
    fn turn(&self) -> Option<Mutant> {
        let (i, line) = self
            .lines
            .iter()
            .rev()
            .find(|(_, l)| l.contains("icmp eq i64 %indvars.iv.next"))?;
        let (head, count) = line.rsplit_once(", ")?;
        let count: u64 = count.parse().ok().filter(|&n| n > 1)?;
        self.mutant("one turn less", vec![(*i, format!("{head}, {}", count - 1))])
    }

    /// The sum of a product is a difference.
    fn sign(&self) -> Option<Mutant> {
        let (i, line) = self
            .lines
            .iter()
            .find(|(_, l)| l.contains(" = fadd ") || l.contains(" = fsub "))?;
        let changed = match line.contains(" = fadd ") {
            true => line.replace(" = fadd ", " = fsub "),
            false => line.replace(" = fsub ", " = fadd "),
        };
        self.mutant("another sign", vec![(*i, changed)])
    }

    /// Each barrier is left out.
    fn barriers(&self) -> Vec<Mutant> {
        let calls = self
            .lines
            .iter()
            .filter(|(_, l)| l.contains("call") && l.contains("@syncbn_emu_barrier"));
        calls
            .filter_map(|(i, _)| self.mutant("no barrier", vec![(*i, String::new())]))
            .collect()
    }
}

/// The inputs of a link, kept by a linker that copies them.
struct Link {
    folder: tempfile::TempDir,
    arguments: Vec<String>,
}

impl Link {
    fn new(model: &Path) -> Link {
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
            .args(FLAGS)
            .arg("-o")
            .arg(folder.path().join("own.bin"))
            .status()
            .unwrap();
        assert!(status.success());
        let arguments = fs::read_to_string(folder.path().join("arguments")).unwrap();
        Link {
            arguments: arguments.lines().map(str::to_string).collect(),
            folder,
        }
    }

    /// Links with other kernels.
    fn with(&self, ir: &str) -> PathBuf {
        let at = |name: &str| self.folder.path().join(name);
        fs::write(at("kernels.ll"), ir).unwrap();
        let prefix = std::env::var("LLVM_SYS_221_PREFIX").unwrap_or_else(|_| "/usr/lib/llvm-22".to_string());
        let clang = Command::new(format!("{prefix}/bin/clang"))
            .args(["-c", "-O0", "-fPIC", "-Wno-override-module", "-o"])
            .args([at("gpu-emulated.o"), at("kernels.ll")])
            .output()
            .expect("clang of LLVM 22 is installed (scripts/setup)");
        assert!(
            clang.status.success(),
            "{}",
            String::from_utf8_lossy(&clang.stderr)
        );
        let output = at("mutant.bin");
        let mut last = "";
        let mut command = Command::new("cc");
        for argument in &self.arguments {
            match Path::new(argument).file_name().and_then(|name| name.to_str()) {
                _ if last == "-o" => command.arg(&output),
                Some(name) if name.ends_with(".o") || name.ends_with(".a") => command.arg(at(name)),
                _ => command.arg(argument),
            };
            last = argument;
        }
        assert!(command.status().unwrap().success());
        output
    }
}

const FLAGS: [&str; 6] = ["--mode", "train", "--batch", "4", "--target", "cuda-emulated"];
/// Full batches: with fewer samples the last turns of some loops have nothing to add.
const TRAIN: [&str; 4] = ["--steps", "2", "--rank-batches", "4,4"];

/// Changes that change nothing that is read: an element beyond the last writes the only element again, or a 0 into
/// scratch memory that nothing reads; and a full batch fills the tiles of a convolution, none of whose rows is the
/// one after the last.
const EQUIVALENT: [&str; 4] = [
    "conv_2: one element too many",
    "softmax_cross_entropy_10: one element too many",
    "softmax_cross_entropy_10_1: one element too many",
    "identity_17: one element too many",
];

/// The largest error of all that a run leaves.
fn difference(found: &Trained, reference: &Trained) -> f64 {
    let groups = [
        (&found.weights, &reference.weights),
        (&found.gradients, &reference.gradients),
        (&found.outputs, &reference.outputs),
        (&found.statistics, &reference.statistics),
    ];
    let pairs = groups
        .into_iter()
        .flat_map(|(f, r)| r.iter().map(move |(name, array)| error(&f[name], array)));
    pairs.fold(error(&found.loss, &reference.loss), f64::max)
}

#[test]
fn every_planted_fault_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let model = fixture("mlir/train-step.ir");
    let text = folder.path().join("kernels.ll");
    let mut arguments = vec![model.to_str().unwrap(), "-o", text.to_str().unwrap()];
    arguments.extend(FLAGS);
    arguments.extend(["--emit", "llvm"]);
    compile(folder.path(), &arguments).ok();
    let text = fs::read_to_string(&text).unwrap();

    let mut random = Generator(11);
    let data = folder.path().join("d.npz");
    let x = random.array(&[8, 3, 8, 8]);
    let target = Array::new(&[8], vec![0.0, 1.0, 3.0, 2.0, 1.0, 1.0, 0.0, 2.0]);
    write_npz(&data, &[("x", Column::F32(&x)), ("target", Column::I64(&target))]);

    let link = Link::new(&model);
    let reference = Executable::at(link.with(&text)).train(&data, &TRAIN);
    let mut mutants = Vec::new();
    for kernel in kernels(&text) {
        // AdamW's update does not run here.
        if kernel.name != "update_adamw" {
            mutants.extend(
                [kernel.bound(), kernel.turn(), kernel.sign()]
                    .into_iter()
                    .flatten(),
            );
            mutants.extend(kernel.barriers());
        }
    }
    assert!(mutants.len() > 25, "{} mutants", mutants.len());
    let mut missed = Vec::new();
    for Mutant { what, changes } in mutants {
        let mut lines: Vec<&str> = text.lines().collect();
        for (i, line) in &changes {
            lines[*i] = line;
        }
        let mutant = Executable::at(link.with(&(lines.join("\n") + "\n")));
        let run = mutant.try_train(&data, &TRAIN);
        let noticed = run.is_none_or(|trained| difference(&trained, &reference) > 1e-4);
        if !noticed {
            missed.push(what);
        }
    }
    assert_eq!(missed, EQUIVALENT, "not noticed");
}
