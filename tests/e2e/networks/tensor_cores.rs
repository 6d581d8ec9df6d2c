//! Convolutions and linear layers as tensor cores compute them, under the emulator. BatchNorm and SiLU stand between
//! them, because the slope of ReLU jumps where rounding changes a sign.

use super::check::{Build, Case, Target, check_builds};
use crate::support::net::Attribute::Ints;
use crate::support::net::{Attributes, Net};

/// Operands in tf32, and each operand as the sum of two tf32 numbers.
const BUILDS: [Build; 2] = [
    Build {
        precision: "tf32",
        flags: &["--target", "cuda-emulated", "--precision", "tf32"],
        tolerance: 2e-2,
    },
    Build {
        precision: "f32",
        flags: &["--target", "cuda-emulated", "--precision", "f32"],
        tolerance: 1e-4,
    },
];

/// Operands and what is stored in bf16, which keeps three bits less than tf32.
const BF16: [Build; 1] = [Build {
    precision: "bf16",
    flags: &["--target", "cuda-emulated", "--precision", "bf16"],
    tolerance: 8.0 * BUILDS[0].tolerance,
}];

/// Copies of 16 bytes take 4 channels in f32, and 8 in bf16: networks of the latter have twice the channels.
const CASES: [(&[Build], i64); 2] = [(&BUILDS, 1), (&BF16, 2)];

fn conv_bn_silu(net: &mut Net, x: &str, dims: &[i64], attributes: Attributes) -> String {
    let x = net.conv(x, dims, attributes);
    let x = net.bn(&x, dims[0]);
    net.silu(&x)
}

/// A network of convolutions behind one that makes 8 channels of the input's 3.
fn behind_stem(name: &'static str, layers: &[(&[i64], Attributes)], splits: &'static [&'static str]) {
    for (builds, factor) in CASES {
        let mut net = Net::new(&[3, 11, 9]);
        let mut channels = 8 * factor;
        let pads = &[("pads", Ints(&[1, 1, 1, 1]))];
        let mut x = conv_bn_silu(&mut net, "x", &[channels, 3, 3, 3], pads);
        for (dims, attributes) in layers {
            let dims = [&[dims[0] * factor, dims[1] * factor], &dims[2..]].concat();
            x = conv_bn_silu(&mut net, &x, &dims, attributes);
            channels = dims[0];
        }
        let y = net.head(&x, channels, 8);
        let case = Case {
            name,
            onnx: net.finish(&[&y]),
            input: &[3, 11, 9],
            target: Target::Classes(8, &[]),
            splits,
        };
        check_builds(case, builds);
    }
}

/// One rank, and two with an empty one between them.
const SPLITS: &[&str] = &["6", "3,0,3"];

#[test]
fn strided() {
    let layers: [(&[i64], Attributes); 2] = [
        (
            &[12, 8, 3, 3],
            &[("pads", Ints(&[1, 1, 1, 1])), ("strides", Ints(&[2, 2]))],
        ),
        (&[20, 12, 1, 1], &[("strides", Ints(&[2, 2]))]),
    ];
    behind_stem("tensor_cores_strided", &layers, SPLITS);
}

#[test]
fn dilated() {
    let layers: [(&[i64], Attributes); 2] = [
        (
            &[12, 8, 3, 3],
            &[("pads", Ints(&[2, 3, 2, 3])), ("dilations", Ints(&[2, 3]))],
        ),
        (
            &[16, 12, 3, 3],
            &[
                ("pads", Ints(&[2, 2, 2, 2])),
                ("dilations", Ints(&[2, 2])),
                ("strides", Ints(&[2, 3])),
            ],
        ),
    ];
    behind_stem("tensor_cores_dilated", &layers, SPLITS);
}

#[test]
fn asymmetric_padding() {
    let layers: [(&[i64], Attributes); 1] = [(
        &[12, 8, 4, 3],
        &[("pads", Ints(&[0, 2, 3, 1])), ("strides", Ints(&[2, 3]))],
    )];
    behind_stem("tensor_cores_asymmetric_padding", &layers, SPLITS);
}

#[test]
fn stride_beyond_window() {
    let layers: [(&[i64], Attributes); 2] = [
        (&[8, 8, 2, 1], &[("strides", Ints(&[3, 2]))]),
        (
            &[12, 8, 7, 7],
            &[("pads", Ints(&[3, 3, 3, 3])), ("strides", Ints(&[2, 4]))],
        ),
    ];
    behind_stem("tensor_cores_stride_beyond_window", &layers, SPLITS);
}

/// Strides that have factors in common with dilations, an image smaller than the stride, and more padding than window.
#[test]
fn phases_of_every_kind() {
    let layers: [(&[i64], Attributes); 2] = [
        (
            &[12, 8, 3, 3],
            &[
                ("pads", Ints(&[4, 4, 4, 4])),
                ("dilations", Ints(&[2, 4])),
                ("strides", Ints(&[4, 6])),
            ],
        ),
        (
            &[16, 12, 3, 2],
            &[("pads", Ints(&[3, 2, 3, 2])), ("strides", Ints(&[5, 3]))],
        ),
    ];
    behind_stem("tensor_cores_phases_of_every_kind", &layers, SPLITS);
}

#[test]
fn several_tiles() {
    let layers: [(&[i64], Attributes); 2] = [
        (&[36, 8, 3, 3], &[("pads", Ints(&[1, 1, 1, 1]))]),
        (&[68, 36, 3, 3], &[("pads", Ints(&[1, 1, 1, 1]))]),
    ];
    behind_stem("tensor_cores_several_tiles", &layers, &["6", "5,1"]);
}

#[test]
fn linear_layers() {
    for (builds, factor) in CASES {
        let [c, k, l] = [20, 36, 12].map(|n| n * factor);
        let mut net = Net::new(&[40]);
        let x = net.linear("x", 40, c);
        let x = net.silu(&x);
        let x = net.linear(&x, c, k);
        let x = net.silu(&x);
        let x = net.linear(&x, k, l);
        let x = net.silu(&x);
        let y = net.linear(&x, l, 8);
        let case = Case {
            name: "tensor_cores_linear_layers",
            onnx: net.finish(&[&y]),
            input: &[40],
            target: Target::Classes(8, &[]),
            splits: SPLITS,
        };
        check_builds(case, builds);
    }
}
