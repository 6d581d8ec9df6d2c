//! The eight networks of `tests/fixtures/dev` against their float64 references: every split of the batch
//! must give what one rank gives.

mod builds;

use std::collections::BTreeSet;

use builds::{Build, F32, F32_WITH_AVX2, F32_WITHOUT_WINOGRAD, F64};
use syncbn_ir::Array;

use crate::support::compare::{Comparison, error};
use crate::support::executable::{Executable, compiled};
use crate::support::files::{Arrays, Column, read_npz, write_npz};
use crate::support::fixture;

/// Every way in which the 8 samples are dealt to ranks.
const SPLITS: [&[&str]; 6] = [
    &["--ranks", "1", "--batch", "8"],
    &["--ranks", "2", "--batch", "4"],
    &["--ranks", "4", "--batch", "2"],
    &["--ranks", "8", "--batch", "1"],
    &["--rank-batches", "5,3"],
    &["--rank-batches", "5,3,0"],
];

/// The optimiser of the references.
pub const SGD: [&str; 6] = ["--lr", "0.1", "--momentum", "0.9", "--weight-decay", "1e-4"];

/// What the references have of a gradient that is 0, such as that of a bias before BatchNorm.
const ZERO: f64 = 1e-12;

/// A network of the corpus with its data and references.
pub struct Network {
    pub name: &'static str,
    pub references: Arrays,
    folder: tempfile::TempDir,
}

impl Network {
    pub fn new(name: &'static str) -> Network {
        let references = read_npz(&fixture(&format!("dev/{name}.npz")));
        let folder = tempfile::tempdir().unwrap();
        let columns = [
            ("x", Column::F32(&references["x"])),
            ("target", Column::I64(&references["target"])),
        ];
        write_npz(&folder.path().join("data.npz"), &columns);
        Network {
            name,
            references,
            folder,
        }
    }

    pub fn data(&self) -> std::path::PathBuf {
        self.folder.path().join("data.npz")
    }

    pub fn compiled(&self, flags: &[&str]) -> Executable {
        compiled(self.name, &fixture(&format!("dev/{}.onnx", self.name)), flags)
    }

    /// References `GROUP/P` by P.
    pub fn group(&self, group: &str) -> impl Iterator<Item = (&str, &Array)> {
        let prefix = format!("{group}/");
        let named = self.references.iter();
        named.filter_map(move |(name, array)| Some((name.strip_prefix(&prefix)?, array)))
    }
}

/// The only output's array.
pub fn output(outputs: &Arrays) -> &Array {
    assert_eq!(outputs.len(), 1);
    outputs.values().next().unwrap()
}

fn synchronized(name: &'static str, build: Build) {
    let network = Network::new(name);
    let executable = build.compiled(&network, &[]);
    let data = network.data();
    let mut all = Comparison::default();
    let before = executable.infer(&data, &[]);
    let reference = &network.references["eval_before"];
    let tolerance = build.tolerance(&network, "eval_before");
    all.array("eval_before", Some(output(&before)), reference, tolerance);
    // What one rank gives, which comes first.
    let mut whole = Arrays::new();
    for split in SPLITS {
        let flags = |steps| [&SGD[..], &["--steps", steps], split].concat();
        let (one, three) = (
            executable.train(&data, &flags("1")),
            executable.train(&data, &flags("3")),
        );
        let weights = three.weight_file.to_str().unwrap();
        let after = executable.infer(&data, &["--weights", weights]);
        let title = |array: &str| format!("{}: {array}", split.join(" "));
        let mut arrays = Arrays::from([
            ("train_logits".to_string(), output(&one.outputs).clone()),
            ("loss".to_string(), three.loss),
            ("eval_after".to_string(), output(&after).clone()),
        ]);
        for (group, found) in [
            ("grad", &one.gradients),
            ("stats1", &one.weights),
            ("param1", &one.weights),
            ("param3", &three.weights),
            ("stats3", &three.weights),
        ] {
            for (name, _) in network.group(group) {
                let found = found
                    .get(name)
                    .map(|array| (format!("{group}/{name}"), array.clone()));
                all.check(found.is_some(), || title(&format!("{group}/{name} is missing")));
                arrays.extend(found);
            }
        }
        if whole.is_empty() {
            whole = arrays.clone();
        }
        for (key, found) in &arrays {
            let group = key.split('/').next().unwrap();
            let tolerance = build.tolerance(&network, group);
            all.array(&title(key), Some(found), &network.references[key], tolerance);
            // Of a gradient that is 0 there is rounding alone, which the references bound.
            if network.references[key].data.iter().any(|v| v.abs() > ZERO) {
                let between = build.between_splits(&network, group);
                let title = title(&format!("{key} against one rank"));
                all.array(&title, Some(found), &whole[key], between);
            }
        }
        let names = |arrays: &Arrays| arrays.keys().cloned().collect::<BTreeSet<_>>();
        let of = |group| network.group(group).map(|(name, _)| name.to_string()).collect();
        all.check(names(&one.gradients) == of("grad"), || {
            title("the gradients are not those of the trained parameters")
        });
        let saved: BTreeSet<String> = of("param1").union(&of("stats1")).cloned().collect();
        all.check(names(&one.weights) == saved, || {
            title("the saved tensors are not the parameters and statistics")
        });
    }
    all.finish(&format!("{name} in {}", build.title));
}

/// The population rule changes running variances, and nothing that training computes from the batch.
fn population(name: &'static str, build: Build) {
    let network = Network::new(name);
    let executable = build.compiled(&network, &["--running-var", "population"]);
    let data = network.data();
    let mut all = Comparison::default();
    for split in [SPLITS[0], SPLITS[5]] {
        for (steps, stats, param) in [("1", "stats1", "param1"), ("3", "stats3", "param3")] {
            let run = executable.train(&data, &[&SGD[..], &["--steps", steps], split].concat());
            let variances = format!("{stats}_population");
            for (name, reference) in network.group(&variances) {
                let tolerance = build.tolerance(&network, &variances);
                all.array(name, run.weights.get(name), reference, tolerance);
            }
            for (name, reference) in network.group(stats).filter(|(n, _)| n.ends_with("running_mean")) {
                all.array(
                    name,
                    run.weights.get(name),
                    reference,
                    build.tolerance(&network, stats),
                );
            }
            for (name, reference) in network.group(param) {
                all.array(
                    name,
                    run.weights.get(name),
                    reference,
                    build.tolerance(&network, param),
                );
            }
            if steps == "3" {
                let weights = run.weight_file.to_str().unwrap();
                let after = executable.infer(&data, &["--weights", weights]);
                let group = "eval_after_population";
                let tolerance = build.tolerance(&network, group);
                all.array(group, Some(output(&after)), &network.references[group], tolerance);
            }
        }
    }
    all.finish(&format!("{name} in {} with the population rule", build.title));
}

/// `--bn local` gives what plain data parallelism gives, and that is not what synchronised training gives.
fn local(name: &'static str, build: Build) {
    let network = Network::new(name);
    let executable = build.compiled(&network, &["--bn", "local"]);
    let synchronized = build.compiled(&network, &[]);
    let data = network.data();
    let mut all = Comparison::default();
    for (case, split) in [("unsync2", SPLITS[1]), ("unsync4", SPLITS[2])] {
        let flags = [&["--steps", "1"][..], split].concat();
        let run = executable.train(&data, &flags);
        let reference = &network.references[&format!("{case}/train_logits")];
        all.array(
            case,
            Some(output(&run.outputs)),
            reference,
            build.tolerance(&network, case),
        );
        let other = synchronized.train(&data, &flags);
        let difference = error(output(&other.outputs), reference);
        all.check(difference > 1e-2, || {
            format!("synchronised training gives {case} but for {difference:.1e}")
        });
    }
    all.finish(&format!("{name} in {} with --bn local", build.title));
}

macro_rules! networks {
    ($($name:ident)*) => { $(
        mod $name {
            networks! { $name, synchronized:
                float64 F64, float32 F32, float32_without_winograd F32_WITHOUT_WINOGRAD, float32_with_avx2 F32_WITH_AVX2 }
            networks! { $name, population: population_float64 F64, population_float32 F32,
                population_float32_without_winograd F32_WITHOUT_WINOGRAD }
            networks! { $name, local: local_float64 F64, local_float32 F32,
                local_float32_without_winograd F32_WITHOUT_WINOGRAD }
        }
    )* };
    ($name:ident, $check:ident: $($test:ident $build:ident),*) => { $(
        #[test]
        fn $test() {
            super::$check(stringify!($name), super::$build);
        }
    )* };
}

networks! {
    syncbnnet_small syncbnnet_w4 syncbnnet_w8 syncbnnet_w12
    resnet18_narrow mobilenetv2_narrow densenet_like mlp_bn1d
}
