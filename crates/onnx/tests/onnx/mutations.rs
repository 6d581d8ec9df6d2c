//! No bytes make the importer panic or allocate without bounds: fixtures with random changes, and random bytes.

use crate::common::model::{With, longs, model, node, ramp};
use crate::common::{fixtures, index};
use proptest::prelude::*;
use prost::Message;
use syncbn_ir::verify;
use syncbn_onnx::{ImportOptions, import_bytes};

/// A small generator with a fixed seed (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }
}

/// Imports; what imports must be a graph that the verifier accepts.
fn try_import(bytes: &[u8]) -> bool {
    let options = ImportOptions {
        init: true,
        ..ImportOptions::default()
    };
    match import_bytes(bytes, None, &options) {
        Ok(imported) => {
            verify(&imported.graph).unwrap_or_else(|errors| panic!("{errors:?}"));
            true
        }
        Err(errors) => {
            assert!(!errors.0.is_empty());
            false
        }
    }
}

fn mutate(bytes: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..1 + random.below(4) {
        let at = random.below(bytes.len());
        match random.below(6) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = random.next() as u8,
            2 => bytes.truncate(at.max(1)),
            3 => bytes.insert(at, random.next() as u8),
            4 => drop(bytes.drain(at..(at + random.below(16)).min(bytes.len()))),
            _ => bytes[at] = [0, 0x7f, 0x80, 0xff][random.below(4)],
        }
        if bytes.is_empty() {
            bytes.push(0);
        }
    }
}

#[test]
fn changed_bytes_of_small_files() {
    let mut random = Random(7);
    let (mut accepted, mut refused) = (0, 0);
    let cases = index("hostile");
    for case in cases.as_array().unwrap() {
        let original = std::fs::read(fixtures("hostile").join(case["file"].as_str().unwrap())).unwrap();
        if original.is_empty() || original.len() > 8000 {
            continue;
        }
        for _ in 0..30 {
            let mut bytes = original.clone();
            // A single changed byte often leaves a file that decodes.
            if random.below(2) == 0 {
                let at = random.below(bytes.len());
                bytes[at] = random.next() as u8;
            } else {
                mutate(&mut bytes, &mut random);
            }
            if try_import(&bytes) {
                accepted += 1
            } else {
                refused += 1
            }
        }
    }
    assert!(
        accepted > 100 && refused > 500,
        "{accepted} accepted, {refused} refused"
    );
}

#[test]
fn changed_bytes_of_networks() {
    let mut random = Random(11);
    for name in ["mlp_bn1d", "densenet_like", "mobilenetv2_narrow", "syncbnnet_w4"] {
        let original = std::fs::read(fixtures("dev").join(format!("{name}.onnx"))).unwrap();
        for _ in 0..60 {
            let mut bytes = original.clone();
            mutate(&mut bytes, &mut random);
            try_import(&bytes);
        }
    }
}

#[test]
fn changed_bytes_of_single_operators() {
    let mut random = Random(13);
    let folder = std::path::PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/node");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|f| f.unwrap().path())
        .collect();
    files.sort();
    for file in files
        .iter()
        .filter(|f| f.extension().is_some_and(|e| e == "onnx"))
    {
        let original = std::fs::read(file).unwrap();
        // The header with the node and its attributes stands in front of the tensors' data.
        let head = original.len().min(300);
        for _ in 0..12 {
            let mut bytes = original.clone();
            let at = random.below(head);
            bytes[at] = random.next() as u8;
            try_import(&bytes);
        }
    }
}

/// Numbers at which arithmetic goes wrong.
fn number() -> impl Strategy<Value = i64> {
    prop_oneof![
        6 => -4i64..9,
        1 => Just(i64::MIN),
        1 => Just(i64::MAX),
        1 => Just(i64::from(i32::MAX)),
        1 => Just(1 << 40),
        1 => any::<i64>(),
    ]
}

fn numbers(n: usize) -> impl Strategy<Value = Vec<i64>> {
    proptest::collection::vec(number(), n)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1024, ..ProptestConfig::default() })]

    #[test]
    fn odd_windows(
        op in prop_oneof![Just("MaxPool"), Just("AveragePool"), Just("Conv")],
        kernel in numbers(2),
        strides in numbers(2),
        pads in numbers(4),
        dilations in numbers(2),
        group in number(),
        auto in 0usize..4,
        ceil in 0i64..2,
    ) {
        let inputs = if op == "Conv" { "x w" } else { "x" };
        let mut window = node(op, inputs, "y").ints("strides", &strides).ints("dilations", &dilations);
        window = match auto {
            0 => window.text("auto_pad", "SAME_UPPER"),
            1 => window.text("auto_pad", "SAME_LOWER"),
            2 => window.ints("pads", &pads),
            _ => window,
        };
        window = if op == "Conv" { window.int("group", group) } else { window.ints("kernel_shape", &kernel).int("ceil_mode", ceil) };
        try_import(&model(20, &[0, 3, 8, 8], vec![ramp("w", &[4, 3, 3, 3], 0.1)], vec![window]).encode_to_vec());
    }

    #[test]
    fn odd_shapes(
        op in prop_oneof![
            Just("Reshape"), Just("Expand"), Just("Squeeze"), Just("Unsqueeze"), Just("ReduceMean"),
            Just("ReduceSum"), Just("Split"), Just("Slice"), Just("ConstantOfShape"), Just("Range"),
        ],
        first in proptest::collection::vec(number(), 0..5),
        second in proptest::collection::vec(number(), 0..5),
        third in proptest::collection::vec(number(), 0..5),
        batch in -1i64..4,
    ) {
        let list = |name: &str, values: &[i64]| longs(name, &[values.len() as i64], values);
        let scalar = |name: &str, values: &[i64]| longs(name, &[], &[values.first().copied().unwrap_or(0)]);
        let make = if op == "Range" { scalar } else { list };
        let initializers = vec![make("a", &first), make("b", &second), make("c", &third)];
        let nodes = match op {
            "ConstantOfShape" => vec![node(op, "a", "z"), node("Add", "x z", "y")],
            "Range" => vec![node(op, "a b c", "z"), node("Reshape", "x z", "y")],
            "Slice" => vec![node(op, "x a b c", "y")],
            _ => vec![node(op, "x a", "y")],
        };
        try_import(&model(20, &[batch, 3, 4, 2], initializers, nodes).encode_to_vec());
    }

    #[test]
    fn odd_integers(
        op in prop_oneof![
            Just("Add"), Just("Sub"), Just("Mul"), Just("Div"), Just("Equal"), Just("Min"), Just("Max"), Just("Gather"),
        ],
        values in proptest::collection::vec(number(), 1..5),
        swap: bool,
    ) {
        let inputs = if swap && op != "Gather" { "a s" } else { "s a" };
        let nodes = vec![node("Shape", "x", "s"), node(op, inputs, "t"), node("Reshape", "x t", "y")];
        let initializers = vec![longs("a", &[values.len() as i64], &values)];
        try_import(&model(20, &[0, 3, 4, 2], initializers, nodes).encode_to_vec());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        try_import(&bytes);
    }

    #[test]
    fn random_positions_of_a_network(at in 0usize..1000, byte: u8) {
        let mut bytes = std::fs::read(fixtures("hostile").join("ok_control.onnx")).unwrap();
        bytes[at] = byte;
        try_import(&bytes);
    }
}
