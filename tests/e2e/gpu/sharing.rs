//! Kernels that serve convolutions of several shapes.

use std::collections::BTreeSet;
use std::fs;

use crate::support::net::Attribute::{Int, Ints};
use crate::support::net::Net;
use crate::support::run::compile;

/// A convolution: output channels, window and stride.
type Layer = [i64; 3];

/// Side of all images.
const SIDE: i64 = 14;

/// The code of the matrix products of a network, one layer beside the other on what a first one makes.
fn products(layers: &[Layer]) -> BTreeSet<String> {
    let mut net = Net::new(&[8, SIDE, SIDE]);
    let x = net.conv("x", &[64, 8, 1, 1], &[]);
    let mut outputs = Vec::new();
    for &[k, window, stride] in layers {
        let pad = window / 2;
        let attributes = [
            ("pads", Ints(&[pad, pad, pad, pad])),
            ("strides", Ints(&[stride, stride])),
        ];
        let y = net.conv(&x, &[k, 64, window, window], &attributes);
        let y = net.bn(&y, k);
        outputs.push(net.node("GlobalAveragePool", &[&y], &[]));
    }
    let operands: Vec<&str> = outputs.iter().map(String::as_str).collect();
    let joined = net.node("Concat", &operands, &[("axis", Int(1))]);
    let y = net.node("Flatten", &[&joined], &[]);
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("m.onnx"), net.finish(&[&y])).unwrap();
    let flags = "m.onnx -o m.mlir --emit mlir --target cuda --mode train --batch 8";
    compile(folder.path(), &flags.split(' ').collect::<Vec<_>>()).ok();
    let text = fs::read_to_string(folder.path().join("m.mlir")).unwrap();
    let functions = text.split("llvm.func @").skip(1);
    // Without the names, which have numbers.
    let kernels = functions.filter_map(|f| Some((f.split('_').next()?, f.split_once('(')?.1)));
    kernels
        .filter(|(_, code)| code.contains("nvvm.mma.sync"))
        .map(|(op, code)| format!("{op}({code}"))
        .collect()
}

/// Whichever layer comes first, its code serves the other one, so both orders make the same code: it depends on
/// nothing but the plan that both have.
#[test]
fn layers_share_code_that_is_the_same_for_both() {
    for [one, other] in [
        [[128, 3, 1], [256, 3, 1]],
        [[128, 1, 1], [256, 1, 1]],
        [[128, 3, 2], [128, 5, 3]],
        [[64, 3, 1], [64, 5, 1]],
    ] {
        let [first, second] = [[one, other], [other, one]].map(|layers| products(&layers));
        let difference = first.symmetric_difference(&second).count();
        assert_eq!(
            difference, 0,
            "{one:?} and {other:?}: kernels depend on the order"
        );
        let apart: BTreeSet<String> = [one, other]
            .into_iter()
            .flat_map(|layer| products(&[layer]))
            .collect();
        assert_eq!(apart.len(), first.len(), "{one:?} and {other:?}");
        // The first layer takes two kernels, every other one three if nothing is shared.
        assert!(
            first.len() < 2 + 3 + 3,
            "{one:?} and {other:?} share nothing of {}",
            first.len()
        );
    }
}
