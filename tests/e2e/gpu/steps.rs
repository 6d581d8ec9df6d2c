//! How steps are run changes no bit: as graphs or kernel by kernel, with one stream or with two.

use crate::corpus::{Network, SGD};
use crate::support::executable::Executable;

const FLAGS: [&str; 4] = ["--precision", "f32", "--target", "cuda-emulated"];

/// Trains seven steps of five and three samples in turn, so that both have been captured and replayed.
fn train(executable: &Executable, network: &Network, flags: &[&str]) -> (Vec<u8>, Vec<f64>) {
    let all = [&SGD[..], &["--steps", "7", "--rank-batches", "3,2,0"], flags].concat();
    let trained = executable.train(&network.data(), &all);
    (trained.weight_bytes, trained.loss.data)
}

#[test]
fn graphs_and_streams_change_no_bit() {
    for name in ["mlp_bn1d", "syncbnnet_w4"] {
        let network = Network::new(name);
        let executable = network.compiled(&FLAGS);
        let plain = train(&executable, &network, &["--graphs", "off", "--overlap", "off"]);
        for flags in [&[][..], &["--graphs", "off"], &["--overlap", "off"]] {
            assert!(train(&executable, &network, flags) == plain, "{name} {flags:?}");
        }
    }
}

#[test]
fn generated_steps_are_captured() {
    let executable = Network::new("syncbnnet_w4").compiled(&FLAGS);
    for mode in ["train", "infer"] {
        let flags = ["--ranks", "2", "--batch", "2", "--steps", "3", "--warmup", "2"];
        let all = [&["bench", "--json", "--mode", mode][..], &flags].concat();
        let figures = executable.run(std::path::Path::new("."), &all).ok().json();
        assert_eq!(figures["replayed_steps"], 3, "{mode}");
    }
}
