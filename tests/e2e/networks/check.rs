//! The comparison of an executable with the reference evaluation.

use std::collections::BTreeMap;
use std::path::Path;

use syncbn_ir::training::Generator;
use syncbn_ir::{Array, Graph, OutputKind, RankInputs, Sgd, State, evaluate, initial_state, train_step};
use syncbn_onnx::ImportOptions;
use syncbn_passes::{Loss, Options, inference_graph, training_graph};

use crate::support::compare::Comparison;
use crate::support::executable::{Executable, compiled};
use crate::support::files::{Arrays, Column, write_npz};

/// What the loss compares the output with.
pub enum Target {
    /// Labels below the number, for each sample and each of these positions.
    Classes(usize, &'static [usize]),
    /// Values of this shape after the batch, with `--loss mse`.
    Values(&'static [usize]),
}

/// A network and what to train it on.
pub struct Case {
    /// Unique among the tests.
    pub name: &'static str,
    /// The file.
    pub onnx: Vec<u8>,
    /// Sizes of `x` after the batch.
    pub input: &'static [usize],
    /// What is learnt.
    pub target: Target,
    /// Samples of each rank, for several splits with the same total.
    pub splits: &'static [&'static str],
}

/// The splits of most cases: one rank, uneven, and with an empty rank.
pub const SPLITS: &[&str] = &["6", "4,2", "2,2,1,1", "3,0,3"];

/// The optimiser, with a rate that changes parameters by much in three steps.
const SGD: Sgd = Sgd {
    learning_rate: 0.05,
    momentum: 0.9,
    weight_decay: 1e-3,
    nesterov: false,
};
const SGD_FLAGS: [&str; 6] = ["--lr", "0.05", "--momentum", "0.9", "--weight-decay", "1e-3"];

/// What the executables must give.
struct Reference {
    /// Inference with the initial weights, and with those after three steps.
    infer: [Arrays; 2],
    /// Outputs, gradients, losses.
    outputs: Arrays,
    gradients: Arrays,
    losses: Array,
    /// Parameters and statistics after one and after three steps.
    weights: [Arrays; 2],
}

/// How a case is compiled, and how far its arrays may be from the reference, relative to their largest element.
pub struct Build {
    /// Name in messages.
    pub precision: &'static str,
    /// Flags of the compiler.
    pub flags: &'static [&'static str],
    /// The bound.
    pub tolerance: f64,
}

/// Float64 and float32 on the CPU.
const CPU: [Build; 2] = [
    Build {
        precision: "f64",
        flags: &["--precision", "f64"],
        tolerance: 1e-9,
    },
    Build {
        precision: "f32",
        flags: &["--precision", "f32"],
        tolerance: 1e-4,
    },
];

/// Float32 on a GPU, under the emulator.
const EMULATED: Build = Build {
    precision: "f32 emulated",
    flags: &["--target", "cuda-emulated", "--precision", "f32"],
    tolerance: 1e-4,
};

/// Compiles the case in float64 and float32 and compares every split with the reference. `make test-emulated` does so
/// with the GPU's kernels.
pub fn check(case: Case) {
    match std::env::var_os("SYNCBN_EMULATED") {
        Some(_) => check_builds(case, &[EMULATED]),
        None => check_builds(case, &CPU),
    }
}

/// Compiles the case in several ways and compares every split with the reference.
pub fn check_builds(case: Case, builds: &[Build]) {
    let folder = tempfile::tempdir().unwrap();
    let onnx = folder.path().join("model.onnx");
    std::fs::write(&onnx, &case.onnx).unwrap();
    let samples = case.splits[0]
        .split(',')
        .map(|n| n.parse::<usize>().unwrap())
        .sum();
    let mut random = Generator(11);
    let (x, target) = data(&case, samples, &mut random);
    let path = folder.path().join("data.npz");
    let target_column = match case.target {
        Target::Classes(..) => Column::I64(&target),
        Target::Values(_) => Column::F64(&target),
    };
    write_npz(&path, &[("x", Column::F64(&x)), ("target", target_column)]);
    let reference = reference(&case, &onnx, samples, &x, &target);
    let mut all = Comparison::default();
    for build in builds {
        let mut flags = [build.flags, &["--batch", "8"]].concat();
        if matches!(case.target, Target::Values(_)) {
            flags.extend(["--loss", "mse"]);
        }
        let executable = compiled(case.name, &onnx, &flags);
        compare(
            &case,
            &executable,
            &path,
            &reference,
            build.precision,
            build.tolerance,
            &mut all,
        );
    }
    all.finish(case.name);
}

/// Inputs that float32 holds exactly, and targets.
fn data(case: &Case, samples: usize, random: &mut Generator) -> (Array, Array) {
    let batched = |sizes: &[usize]| [&[samples], sizes].concat();
    let mut x = random.array(&batched(case.input));
    x.data.iter_mut().for_each(|v| *v = f64::from(*v as f32));
    let target = match case.target {
        Target::Classes(classes, positions) => {
            let mut labels = Array::zeros(&batched(positions));
            let label = |r: &mut Generator| (r.uniform() * classes as f64).floor();
            labels.data.iter_mut().for_each(|v| *v = label(random));
            labels
        }
        Target::Values(sizes) => random.array(&batched(sizes)),
    };
    (x, target)
}

fn reference(case: &Case, onnx: &Path, samples: usize, x: &Array, target: &Array) -> Reference {
    let import = ImportOptions {
        dtype: Some(syncbn_ir::DType::F64),
        ..ImportOptions::default()
    };
    let imported = syncbn_onnx::import(onnx, &import).unwrap();
    let options = Options {
        loss: match case.target {
            Target::Classes(..) => Loss::CrossEntropy,
            Target::Values(_) => Loss::MeanSquaredError,
        },
        batch_bound: samples,
        ..Options::default()
    };
    let (train, _) = training_graph(&imported.graph, &options).unwrap();
    let (infer, _) = inference_graph(&imported.graph, &options, None).unwrap();
    let values = BTreeMap::from([
        ("x".to_string(), x.clone()),
        ("target".to_string(), target.clone()),
    ]);
    let rank = [RankInputs { n: samples, values }];
    let mut state = initial_state(&train, 0).unwrap();
    // Inference may know tensors that training does not need, and the other way round.
    let start = initial_state(&imported.graph, 0).unwrap();
    let infer_with = |state: &State| {
        let mut all = start.clone();
        all.parameters.extend(state.parameters.clone());
        all.statistics[0].extend(state.statistics[0].clone());
        let outputs = evaluate(&infer, &rank, &all).unwrap();
        of_kind(&outputs[0], OutputKind::Output)
    };
    let before = infer_with(&state);
    let (mut losses, mut first, mut weights) = (Vec::new(), None, Vec::new());
    for step in 0..3 {
        let outputs = train_step(&train, &rank, &mut state, &SGD).unwrap().remove(0);
        losses.push(of_kind(&outputs, OutputKind::Loss).values().next().unwrap().data[0]);
        if step != 1 {
            let statistics = state.statistics[0].clone();
            weights.push(state.parameters.clone().into_iter().chain(statistics).collect());
        }
        first.get_or_insert(outputs);
    }
    let first = first.unwrap();
    let reference = Reference {
        infer: [before, infer_with(&state)],
        outputs: of_kind(&first, OutputKind::Output),
        gradients: of_kind(&first, OutputKind::Gradient),
        losses: Array::new(&[3], losses),
        weights: weights.try_into().unwrap(),
    };
    check_slope(&train, &rank, &reference.gradients);
    reference
}

fn of_kind(outputs: &syncbn_ir::RankOutputs, kind: OutputKind) -> Arrays {
    let named = outputs.of_kind(kind);
    named
        .map(|(name, array)| (name.to_string(), array.clone()))
        .collect()
}

/// Compares the gradients with the slope of the loss in a random direction, so that the reference does not
/// rest on the differentiation that it shares with the compiler.
fn check_slope(graph: &Graph, rank: &[RankInputs], gradients: &Arrays) {
    let state = initial_state(graph, 0).unwrap();
    let mut random = Generator(5);
    let directions: Vec<(&String, Array)> = gradients
        .iter()
        .map(|(name, gradient)| (name, random.array(&gradient.dims)))
        .collect();
    let loss = |distance: f64| {
        let mut moved = state.clone();
        for (name, direction) in &directions {
            let parameter = moved.parameters.get_mut(*name).unwrap();
            let pairs = parameter.data.iter_mut().zip(&direction.data);
            pairs.for_each(|(p, d)| *p += distance * d);
        }
        let outputs = evaluate(graph, rank, &moved).unwrap();
        of_kind(&outputs[0], OutputKind::Loss)
            .values()
            .next()
            .unwrap()
            .data[0]
    };
    let step = 1e-6;
    let slope = (loss(step) - loss(-step)) / (2.0 * step);
    let expected: f64 = directions
        .iter()
        .flat_map(|(name, d)| d.data.iter().zip(&gradients[*name].data))
        .map(|(d, g)| d * g)
        .sum();
    let error = (slope - expected).abs() / expected.abs().max(1e-2);
    assert!(error < 1e-5, "slope {slope}, gradients say {expected}");
}

fn compare(
    case: &Case,
    executable: &Executable,
    data: &Path,
    reference: &Reference,
    precision: &str,
    tolerance: f64,
    all: &mut Comparison,
) {
    let mut arrays = |title: &str, found: &Arrays, references: &Arrays| {
        for (name, array) in references {
            let name = format!("{precision} {title} {name}");
            let key = name.rsplit(' ').next().unwrap();
            all.array(&name, found.get(key), array, tolerance);
        }
    };
    arrays("inference", &executable.infer(data, &[]), &reference.infer[0]);
    let several = executable.infer(data, &["--ranks", "3"]);
    arrays("inference on 3 ranks", &several, &reference.infer[0]);
    for split in case.splits {
        let flags = |steps| [&SGD_FLAGS[..], &["--rank-batches", split, "--steps", steps]].concat();
        let (one, three) = (
            executable.train(data, &flags("1")),
            executable.train(data, &flags("3")),
        );
        let after = executable.infer(data, &["--weights", three.weight_file.to_str().unwrap()]);
        arrays(&format!("{split} outputs"), &one.outputs, &reference.outputs);
        arrays(
            &format!("{split} gradients"),
            &one.gradients,
            &reference.gradients,
        );
        arrays(&format!("{split} first"), &one.weights, &reference.weights[0]);
        arrays(&format!("{split} third"), &three.weights, &reference.weights[1]);
        arrays(&format!("{split} inference after"), &after, &reference.infer[1]);
        let losses = Arrays::from([("losses".to_string(), three.loss)]);
        let wanted = Arrays::from([("losses".to_string(), reference.losses.clone())]);
        arrays(split, &losses, &wanted);
        let counts = (one.gradients.len(), reference.gradients.len());
        assert_eq!(counts.0, counts.1, "{}: gradients of {split}", case.name);
    }
}
