//! Runs of one command give the same bits, whatever the processor has to do meanwhile.

use std::path::Path;

use crate::corpus::{Network, SGD};
use crate::support::executable::Executable;
use crate::support::run::{listing, run};

/// Networks and flags that take every schedule of the CPU: depthwise, and Winograd's algorithm for both strides, in
/// vectors of two widths.
const BUILDS: [(&str, &[&str]); 4] = [
    ("mobilenetv2_narrow", &[]),
    ("syncbnnet_w12", &[]),
    ("syncbnnet_w12", &["--cpu", "x86-64-v3"]),
    ("resnet18_narrow", &["--winograd", "off"]),
];

fn compiled(network: &Network, flags: &[&str]) -> Executable {
    network.compiled(&[&["--precision", "f32"], flags].concat())
}

/// A processor that this process may use.
fn processor() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let list = status
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"))
        .unwrap();
    let first = list.trim().split([',', '-']).next().unwrap();
    first.to_string()
}

#[test]
fn two_runs_give_the_same_bits() {
    for (name, flags) in BUILDS {
        let network = Network::new(name);
        let executable = compiled(&network, flags);
        for split in ["8", "2,2,2,2", "5,3,0"] {
            let flags = [&SGD[..], &["--steps", "5", "--rank-batches", split]].concat();
            let (one, two) = (
                executable.train(&network.data(), &flags),
                executable.train(&network.data(), &flags),
            );
            assert!(one.weight_bytes == two.weight_bytes, "{name} {split}");
            assert!(one.outputs == two.outputs, "{name} {split}");
            let weights = one.weight_file.to_str().unwrap();
            let infer = || executable.infer(&network.data(), &["--weights", weights]);
            assert!(infer() == infer(), "{name} {split}");
        }
    }
}

#[test]
fn shuffled_runs_follow_their_seed() {
    let network = Network::new("mobilenetv2_narrow");
    let executable = compiled(&network, &[]);
    let folder = tempfile::tempdir().unwrap();
    let data = network.data();
    let train = |seed: &str, save: &str| {
        let mut flags = vec![
            "train",
            "--data",
            data.to_str().unwrap(),
            "--seed",
            seed,
            "--save",
            save,
        ];
        flags.extend(["--ranks", "2", "--batch", "2", "--epochs", "2"]);
        executable.run(folder.path(), &flags).ok();
        std::fs::read(folder.path().join(save)).unwrap()
    };
    let first = train("1", "a");
    assert!(first == train("1", "b"));
    assert!(first != train("2", "c"));
    assert_eq!(listing(folder.path()), ["a", "b", "c"]);
}

/// Ranks that take turns on one core give what ranks with a core each give, inference on several ranks what it gives on one.
#[test]
fn cores_and_ranks_of_inference_change_no_bit() {
    for (name, flags) in BUILDS {
        let network = Network::new(name);
        let executable = compiled(&network, flags);
        let data = network.data();
        let folder = tempfile::tempdir().unwrap();
        let (processor, program) = (processor(), executable.path().to_str().unwrap());
        let train = [
            "train",
            "--no-shuffle",
            "--data",
            data.to_str().unwrap(),
            "--save",
        ];
        let split = ["--steps", "3", "--rank-batches", "3,2,0,3"];
        let pinned = [&["-c", &processor, program][..], &train, &["one"], &split].concat();
        run(Path::new("taskset"), folder.path(), &pinned).ok();
        executable
            .run(folder.path(), &[&train[..], &["all"], &split].concat())
            .ok();
        assert_eq!(listing(folder.path()), ["all", "one"]);
        let read = |name: &str| std::fs::read(folder.path().join(name)).unwrap();
        assert!(read("one") == read("all"), "{name}");
        let one = executable.infer(&data, &["--ranks", "1"]);
        assert!(one == executable.infer(&data, &["--ranks", "3"]), "{name}");
    }
}
