//! Kernels that serve convolutions of several shapes.

use std::fs;

use crate::support::net::Attribute::{Int, Ints};
use crate::support::net::Net;
use crate::support::run::compile;

/// A convolution: output channels, window and stride.
type Layer = [i64; 3];

/// Side of all images.
const SIDE: i64 = 14;

/// The code of the matrix products of a network, one layer beside the other on what a first one makes, in order.
fn products(layers: &[Layer]) -> Vec<String> {
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
    let kernels = functions.filter_map(|f| Some((f.split_once("_")?.0, f.split_once('(')?.1)));
    let mut products: Vec<String> = kernels
        .filter(|(_, code)| code.contains("nvvm.mma.sync"))
        .map(|(op, code)| format!("{op}({code}"))
        .collect();
    products.sort_unstable();
    products
}

/// Whichever layer comes first, its code serves the other one, so both orders make the same code: it depends on
/// nothing but the plan that both have. Each layer has three directions, the first one two.
#[test]
fn layers_share_code_that_is_the_same_for_both() {
    for ([one, other], kernels) in [
        // The tile is another one for all but the gradients for the input.
        ([[128, 3, 1], [256, 3, 1]], 2 + 3 + 2),
        ([[128, 1, 1], [256, 1, 1]], 2 + 3 + 1),
        ([[128, 3, 2], [128, 5, 3]], 2 + 3),
        // Without a stride the gradient for the input has no phases, and that for the weights takes another tile.
        ([[128, 3, 1], [128, 3, 2]], 2 + 3 + 2),
        ([[64, 3, 1], [64, 5, 1]], 2 + 3),
    ] {
        let [first, second] = [[one, other], [other, one]].map(|layers| products(&layers));
        assert!(
            first == second,
            "{one:?} and {other:?}: kernels depend on the order"
        );
        let mut different = first.clone();
        different.dedup();
        assert_eq!(
            different.len(),
            first.len(),
            "{one:?} and {other:?}: some code stands twice"
        );
        assert_eq!(first.len(), kernels, "{one:?} and {other:?}");
    }
}
