//! Faults planted into kernels: the emulator, or the comparison of what a training step leaves, must notice each.
//!
//! The LLVM IR of the emulated kernels is taken as text. What a fault changes is assembled by clang and linked in place of
//! the compiler's own.

mod cooperative;
mod kernel;
mod late;
mod link;
mod plain;

use std::fs;
use std::path::{Path, PathBuf};

use kernel::{Kernel, Mutant, kernels, replaceable};
use late::late;
use link::Link;
use syncbn_ir::Array;
use syncbn_ir::training::Generator;
use tempfile::TempDir;

use crate::support::compare::error;
use crate::support::executable::{Executable, Trained};
use crate::support::files::{Column, write_npz};
use crate::support::net::Attribute::{Int, Ints};
use crate::support::net::Net;
use crate::support::run::compile;

/// f32, so that the operands' less significant parts count too.
const FLAGS: [&str; 8] = [
    "--mode",
    "train",
    "--batch",
    "4",
    "--target",
    "cuda-emulated",
    "--precision",
    "cuda=f32",
];
/// Full batches: with fewer samples the last turns of some loops have nothing to add.
const TRAIN: [&str; 4] = ["--steps", "2", "--rank-batches", "4,4"];
/// An array that a fault moves by more than this is outside the bounds of f32.
const NOTICED: f64 = 1e-4;

/// A network, its kernels' text and what they compute.
struct Subject {
    link: Link,
    text: String,
    data: PathBuf,
    reference: Trained,
    _folder: TempDir,
}

impl Subject {
    /// A network with inputs of the given sizes and at least four classes.
    fn new(model: &Path, sizes: [usize; 4]) -> Subject {
        let folder = tempfile::tempdir().unwrap();
        let text = folder.path().join("kernels.ll");
        let mut arguments = vec![model.to_str().unwrap(), "-o", text.to_str().unwrap()];
        arguments.extend(FLAGS);
        arguments.extend(["--emit", "llvm"]);
        compile(folder.path(), &arguments).ok();
        let text = fs::read_to_string(&text).unwrap();

        let mut random = Generator(11);
        let data = folder.path().join("d.npz");
        let x = random.array(&sizes);
        let target = Array::new(&[8], vec![0.0, 1.0, 3.0, 2.0, 1.0, 1.0, 0.0, 2.0]);
        write_npz(&data, &[("x", Column::F32(&x)), ("target", Column::I64(&target))]);
        let link = Link::new(model, &FLAGS, &replaceable(&text));
        let reference = Executable::at(link.unchanged()).train(&data, &TRAIN);
        Subject {
            link,
            text,
            data,
            reference,
            _folder: folder,
        }
    }

    /// Every fault of these kinds.
    fn mutants(&self, faults: impl Fn(&Kernel) -> Vec<Mutant>) -> Vec<Mutant> {
        // AdamW's update does not run here.
        let kernels = kernels(&self.text);
        let run = kernels.iter().filter(|kernel| kernel.name != "update_adamw");
        run.flat_map(faults).collect()
    }

    /// Those that nothing notices.
    fn missed<'m>(&self, mutants: impl Iterator<Item = &'m Mutant>) -> Vec<&'m str> {
        let missed = mutants.filter(|mutant| !self.notices(mutant));
        missed.map(|mutant| mutant.what.as_str()).collect()
    }

    /// What a run with a fault says.
    fn said(&self, mutant: &Mutant) -> String {
        let executable = Executable::at(self.link.with(&mutant.of(&self.text)));
        executable.attempt(&self.data, &TRAIN).stderr
    }

    fn notices(&self, mutant: &Mutant) -> bool {
        let executable = Executable::at(self.link.with(&mutant.of(&self.text)));
        let run = executable.try_train(&self.data, &TRAIN);
        run.is_none_or(|trained| difference(&trained, &self.reference) > NOTICED)
    }
}

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

/// A change that changes nothing: the element beyond the last is in no block.
const EQUIVALENT: [&str; 1] = ["reduce_3_1: one element too many"];

/// A network of plain kernels: groups are not for matrix instructions.
fn plain(channels: i64) -> Subject {
    let mut net = Net::new(&[4, 8, 8]);
    let attributes = [("pads", Ints(&[1, 1, 1, 1])), ("group", Int(2))];
    let x = net.conv("x", &[channels, 2, 3, 3], &attributes);
    let x = net.bn(&x, channels);
    let x = net.silu(&x);
    let x = net.node("GlobalAveragePool", &[&x], &[]);
    let y = net.node("Flatten", &[&x], &[]);
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model.onnx");
    fs::write(&model, net.finish(&[&y])).unwrap();
    Subject::new(&model, [8, 4, 8, 8])
}

#[test]
fn every_fault_of_a_plain_kernel_is_noticed() {
    // Six channels are no whole number of blocks that merge sums.
    let subject = plain(6);
    let mutants = subject.mutants(|kernel| kernel.plain());
    assert!(mutants.len() > 25, "{} mutants", mutants.len());
    assert_eq!(subject.missed(mutants.iter()), EQUIVALENT, "not noticed");
}

#[test]
fn a_tensor_that_begins_late_is_noticed_although_another_one_follows() {
    // Vectors of 16 channels fill the arena's alignment, so that those that are made together lie side by side.
    let subject = plain(16);
    let mut faults = late(&subject.text);
    faults.retain(|fault| fault.mutant.what.contains("norm"));
    let mut in_reach = Vec::new();
    for fault in &faults {
        let said = subject.said(&fault.mutant);
        let what = &fault.mutant.what;
        assert!(said.contains(" of node"), "{what}: {said}");
        let refused = format!(
            "parameter {} (ends {} bytes past its ",
            fault.parameter, fault.bytes
        );
        if !said.contains(&refused) {
            // A kernel that updates a tensor in place meets its own writes first.
            assert!(said.contains("no barrier since"), "{what}: {said}");
            continue;
        }
        let anywhere = subject.said(&fault.anywhere);
        if !anywhere.contains("outside what it may touch") {
            in_reach.push((fault.written, what, anywhere));
        }
    }
    // Bounds of the whole kernel would not do, neither for loads nor for stores.
    for written in [false, true] {
        let found = in_reach.iter().any(|(w, ..)| *w == written);
        assert!(
            found,
            "no tensor with written = {written} is followed by another: {in_reach:#?}"
        );
    }
}

/// Changes that change nothing. A window of one pixel reads nothing outside the image, whose sizes are these numbers
/// of its kernels; where it must not read at all it is far outside. And where channels fill the tile, no thread that
/// merges moments is past the last one.
const HARMLESS: [&str; 5] = [
    "conv_1: one pixel too many of number 0",
    "conv_1: one pixel too many of number 16",
    "conv_4: one pixel too many of number 26",
    "conv_backward_weight_25: one pixel too many of number 0",
    "conv_backward_weight_25: one pixel too many of number 4",
];

/// Of the images.
const SIDE: usize = 7;

/// Every third one and the first of each kind; all of them where `SYNCBN_EMULATED` is set.
#[test]
fn every_fault_of_a_cooperative_kernel_is_noticed() {
    // Fault and result meet everywhere: channels fill tiles, products have more steps than shared memory holds, and
    // their last step is in the part of shared memory that their result takes.
    let mut net = Net::new(&[128, SIDE as i64, SIDE as i64]);
    let x = net.conv("x", &[32, 128, 1, 1], &[]);
    let x = net.bn(&x, 32);
    let x = net.silu(&x);
    // Its gradient has phases along one axis.
    let attributes = [("pads", Ints(&[2, 2, 2, 2])), ("strides", Ints(&[1, 2]))];
    let x = net.conv(&x, &[32, 32, 5, 5], &attributes);
    let x = net.bn(&x, 32);
    let x = net.silu(&x);
    let y = net.head(&x, 32, 4);
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model.onnx");
    fs::write(&model, net.finish(&[&y])).unwrap();
    let subject = Subject::new(&model, [8, 128, SIDE, SIDE]);
    // The samples are no tile of a linear layer.
    let mutants = subject.mutants(|kernel| match kernel.name.starts_with("conv") {
        true => kernel.cooperative(),
        false => Vec::new(),
    });
    let every = if std::env::var_os("SYNCBN_EMULATED").is_some() {
        1
    } else {
        3
    };
    let firsts = cooperative::KINDS.map(|kind| {
        let first = mutants.iter().position(|mutant| mutant.what.contains(kind));
        first.unwrap_or_else(|| panic!("there is no fault of the kind \"{kind}\""))
    });
    let planted = mutants
        .iter()
        .enumerate()
        .filter(|(i, _)| i % every == 0 || firsts.contains(i));
    let planted: Vec<&Mutant> = planted.map(|(_, mutant)| mutant).collect();
    let harmless: Vec<&str> = planted
        .iter()
        .map(|mutant| mutant.what.as_str())
        .filter(|what| HARMLESS.contains(what))
        .collect();
    let missed = subject.missed(planted.into_iter());
    assert_eq!(missed, harmless, "not noticed of {}", mutants.len());
}
