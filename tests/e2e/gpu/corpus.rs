//! The networks of `tests/fixtures/dev` on emulated GPUs against their float64 references. A large network takes a
//! minute under the emulator: `make test-emulated` runs those too.

use super::EMULATED;
use crate::corpus::{Network, SGD, output};
use crate::determinism::of_rank;
use crate::support::compare::Comparison;

const SPLITS: [&str; 4] = ["8", "4,4", "2,2,2,2", "5,3,0"];
/// Bound of every array.
const LIMIT: f64 = 1e-4;

fn check(name: &'static str) {
    let network = Network::new(name);
    let executable = network.compiled(&EMULATED);
    let data = network.data();
    let mut all = Comparison::default();
    let before = executable.infer(&data, &["--ranks", "2"]);
    all.array(
        "eval_before",
        Some(output(&before)),
        &network.references["eval_before"],
        LIMIT,
    );
    for split in SPLITS {
        let flags = |steps| [&SGD[..], &["--steps", steps, "--rank-batches", split]].concat();
        let (one, three) = (
            executable.train(&data, &flags("1")),
            executable.train(&data, &flags("3")),
        );
        let after = executable.infer(&data, &["--weights", three.weight_file.to_str().unwrap()]);
        for (group, found) in [
            ("train_logits", output(&one.outputs)),
            ("loss", &three.loss),
            ("eval_after", output(&after)),
        ] {
            all.array(
                &format!("{split}: {group}"),
                Some(found),
                &network.references[group],
                LIMIT,
            );
        }
        for (group, found) in [
            ("grad", &one.gradients),
            ("stats1", &one.weights),
            ("param1", &one.weights),
            ("param3", &three.weights),
            ("stats3", &three.weights),
        ] {
            let mut compared = 0;
            for (name, reference) in network.group(group) {
                let title = format!("{split}: {group}/{name}");
                all.array(&title, found.get(name), reference, LIMIT);
                compared += 1;
            }
            all.check(compared > 0, || format!("there is no reference {group}"));
        }
        let first = of_rank(&three.statistics, 0);
        let layers = executable.info()["batch_norms"].as_array().unwrap().len();
        all.check(first.len() == 4 * layers, || {
            format!("{split}: {} statistics", first.len())
        });
        for rank in 1..split.split(',').count() {
            all.check(first == of_rank(&three.statistics, rank), || {
                format!("{split}: the statistics of rank {rank} are not those of rank 0 to the bit")
            });
        }
    }
    all.finish(&format!("{name} on emulated GPUs"));
}

macro_rules! networks {
    ($($(#[$attribute:meta])* $name:ident)*) => { $(
        #[test]
        $(#[$attribute])*
        fn $name() {
            check(stringify!($name));
        }
    )* };
}

networks! {
    mlp_bn1d
    syncbnnet_small
    syncbnnet_w4
    #[ignore = "slow: make test-emulated"]
    syncbnnet_w8
    #[ignore = "slow: make test-emulated"]
    syncbnnet_w12
    #[ignore = "slow: make test-emulated"]
    resnet18_narrow
    #[ignore = "slow: make test-emulated"]
    mobilenetv2_narrow
    #[ignore = "slow: make test-emulated"]
    densenet_like
}
