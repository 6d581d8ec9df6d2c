//! Resize in its variants.

use super::check::{Case, SPLITS, Target, check};
use crate::support::net::Attribute::{self, Int, Ints, Text};
use crate::support::net::{Attributes, Net};

const INPUT: &[usize] = &[3, 5, 4];

/// By scales or to sizes.
enum By {
    Scales([f64; 2]),
    Sizes([i64; 2]),
}

/// Adds a resize of the two last axes of `x`.
fn resize(net: &mut Net, x: &str, by: &By, attributes: Attributes) -> String {
    match by {
        By::Scales([h, w]) => {
            let scales = net.floats(&format!("scales of {x}"), &[4], &[1.0, 1.0, *h, *w]);
            net.node("Resize", &[x, "", &scales], attributes)
        }
        By::Sizes(sizes) => {
            let shape = net.node("Shape", &[x], &[]);
            let (zero, two) = (net.longs(&[0]), net.longs(&[2]));
            let kept = net.node("Slice", &[&shape, &zero, &two], &[]);
            let sizes = net.longs(sizes);
            let sizes = net.node("Concat", &[&kept, &sizes], &[("axis", Int(0))]);
            net.node("Resize", &[x, "", "", &sizes], attributes)
        }
    }
}

/// A network around one resize.
fn around(name: &'static str, by: By, attributes: Attributes) {
    let mut net = Net::new(&[3, 5, 4]);
    let x = net.conv_bn_relu("x", &[6, 3, 3, 3], &[("pads", Ints(&[1, 1, 1, 1]))]);
    let x = resize(&mut net, &x, &by, attributes);
    let x = net.conv_bn_relu(&x, &[5, 6, 2, 2], &[]);
    let y = net.head(&x, 5, 4);
    check(Case {
        name,
        onnx: net.finish(&[&y]),
        input: INPUT,
        target: Target::Classes(4, &[]),
        splits: SPLITS,
    });
}

fn mode<'a>(mode: &'a str, coordinates: &'a str, nearest: &'a str) -> [(&'a str, Attribute<'a>); 3] {
    [
        ("mode", Text(mode)),
        ("coordinate_transformation_mode", Text(coordinates)),
        ("nearest_mode", Text(nearest)),
    ]
}

#[test]
fn nearest_by_whole_scales() {
    let attributes = mode("nearest", "asymmetric", "floor");
    around("nearest_by_whole_scales", By::Scales([2.0, 3.0]), &attributes);
}

#[test]
fn nearest_to_other_sizes() {
    let attributes = mode("nearest", "half_pixel", "round_prefer_floor");
    around("nearest_to_other_sizes", By::Sizes([7, 3]), &attributes);
}

#[test]
fn nearest_by_a_fraction() {
    let attributes = mode("nearest", "half_pixel", "floor");
    around("nearest_by_a_fraction", By::Scales([1.5, 0.6]), &attributes);
}

#[test]
fn bilinear_by_whole_scales() {
    let attributes = mode("linear", "half_pixel", "floor");
    around("bilinear_by_whole_scales", By::Scales([2.0, 2.0]), &attributes);
}

#[test]
fn bilinear_to_larger_sizes() {
    let attributes = mode("linear", "pytorch_half_pixel", "floor");
    around("bilinear_to_larger_sizes", By::Sizes([13, 18]), &attributes);
}

#[test]
fn bilinear_to_smaller_sizes() {
    let attributes = mode("linear", "half_pixel", "floor");
    around("bilinear_to_smaller_sizes", By::Sizes([3, 2]), &attributes);
}

#[test]
fn bilinear_with_aligned_corners() {
    let attributes = mode("linear", "align_corners", "floor");
    around("bilinear_with_aligned_corners", By::Sizes([9, 3]), &attributes);
}

#[test]
fn bilinear_asymmetric() {
    let attributes = mode("linear", "asymmetric", "floor");
    around("bilinear_asymmetric", By::Sizes([8, 20]), &attributes);
}

#[test]
fn segmentation_with_a_label_for_each_pixel() {
    let mut net = Net::new(&[3, 8, 6]);
    let skip = net.conv_bn_relu("x", &[4, 3, 3, 3], &[("pads", Ints(&[1, 1, 1, 1]))]);
    let down = net.conv_bn_relu(&skip, &[6, 4, 2, 2], &[("strides", Ints(&[2, 2]))]);
    let up = resize(
        &mut net,
        &down,
        &By::Sizes([8, 6]),
        &mode("linear", "half_pixel", "floor"),
    );
    let axis = [("axis", Int(1))];
    let joined = net.node("Concat", &[&up, &skip], &axis);
    let y = net.conv_bias(&joined, &[3, 10, 1, 1], &[]);
    check(Case {
        name: "segmentation_with_a_label_for_each_pixel",
        onnx: net.finish(&[&y]),
        input: &[3, 8, 6],
        target: Target::Classes(3, &[8, 6]),
        splits: SPLITS,
    });
}
