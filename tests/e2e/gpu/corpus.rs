//! The networks of `tests/fixtures/dev` on emulated GPUs against their float64 references. A large network takes a
//! minute under the emulator: `make test-emulated` runs those too.

use super::EMULATED;
use crate::corpus::{Network, SGD, output};
use crate::determinism::of_rank;
use crate::support::compare::Comparison;
use crate::support::index;

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

#[test]
fn mlp_bn1d() {
    check("mlp_bn1d");
}

#[test]
fn syncbnnet_small() {
    check("syncbnnet_small");
}

/// `SYNCBN_EMULATED` names the networks, separated by spaces.
#[test]
fn chosen_networks() {
    let chosen = std::env::var("SYNCBN_EMULATED").unwrap_or_else(|_| "syncbnnet_w4".to_string());
    let index = index("dev");
    let models = index["models"].as_array().unwrap();
    let known = |word: &str| models.iter().any(|model| model["name"] == word);
    assert!(chosen.split_whitespace().next().is_some());
    for word in chosen.split_whitespace() {
        assert!(known(word), "{word} is no network of tests/fixtures/dev");
        check(word.to_string().leak());
    }
}
