//! The report on ResNet-50 beside a count by hand.

use std::path::Path;

use serde_json::Value;

use super::kernels::{check_launches, launches, number, report, step};
use crate::support::net::Attribute::Ints;
use crate::support::net::Net;

const FLAGS: &str = "--init --batch 128 --precision bf16 --mode train";

/// A layer of the network: the names of its convolution and of its BatchNorm.
pub struct Layer {
    conv: String,
    bn: String,
}

/// Convolution and BatchNorm, after which the value has the layer's name of BatchNorm.
fn conv_bn(net: &mut Net, x: &str, [k, c, size, stride]: [i64; 4], layers: &mut Vec<Layer>) -> String {
    let pad = size / 2;
    let attributes = [
        ("pads", Ints(&[pad, pad, pad, pad])),
        ("strides", Ints(&[stride, stride])),
    ];
    let conv = net.conv(x, &[k, c, size, size], &attributes);
    let bn = net.bn(&conv, k);
    layers.push(Layer { conv, bn: bn.clone() });
    bn
}

/// torchvision's ResNet-50 (the stride of a block is that of its 3x3 convolution), weights as graph inputs. Layers in the
/// order of blocks; in a block the shortcut comes last.
fn resnet50() -> (Vec<u8>, Vec<Layer>) {
    let mut net = Net::new(&[3, 224, 224]).weight_free();
    let mut layers = Vec::new();
    let x = conv_bn(&mut net, "x", [64, 3, 7, 2], &mut layers);
    let x = net.node("Relu", &[&x], &[]);
    let pool = [
        ("kernel_shape", Ints(&[3, 3])),
        ("pads", Ints(&[1, 1, 1, 1])),
        ("strides", Ints(&[2, 2])),
    ];
    let mut x = net.node("MaxPool", &[&x], &pool);
    let mut channels = 64;
    for (width, blocks, first_stride) in [(64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)] {
        for block in 0..blocks {
            let stride = if block == 0 { first_stride } else { 1 };
            let y = conv_bn(&mut net, &x, [width, channels, 1, 1], &mut layers);
            let y = net.node("Relu", &[&y], &[]);
            let y = conv_bn(&mut net, &y, [width, width, 3, stride], &mut layers);
            let y = net.node("Relu", &[&y], &[]);
            let y = conv_bn(&mut net, &y, [4 * width, width, 1, 1], &mut layers);
            let shortcut = match block {
                0 => conv_bn(&mut net, &x, [4 * width, channels, 1, stride], &mut layers),
                _ => x,
            };
            let sum = net.node("Add", &[&y, &shortcut], &[]);
            x = net.node("Relu", &[&sum], &[]);
            channels = 4 * width;
        }
    }
    let y = net.head(&x, channels, 1000);
    (net.finish(&[&y]), layers)
}

pub fn write(folder: &Path) -> (std::path::PathBuf, Vec<Layer>) {
    let (bytes, layers) = resnet50();
    let model = folder.join("resnet50.onnx");
    std::fs::write(&model, bytes).unwrap();
    (model, layers)
}

/// Of all three directions of a layer and its BatchNorm: operations, bytes moved, and the fewest bytes.
fn counted(train: &Value, layer: &Layer) -> [f64; 3] {
    let operators = [
        "conv",
        "conv_backward_data",
        "conv_backward_weight",
        "normalize",
        "batch_norm_finalize",
        "batch_norm_backward_reduce",
        "batch_norm_backward_data",
    ];
    let mut sums = [0.0; 3];
    for row in launches(train) {
        let belongs = [&layer.conv, &layer.bn]
            .iter()
            .any(|name| row["node"] == name.as_str());
        if belongs && operators.iter().any(|operator| row["operator"] == *operator) {
            sums[0] += number(row, "flop");
            sums[1] += number(row, "read_bytes") + number(row, "written_bytes");
            sums[2] += number(row, "least_bytes");
        }
    }
    sums
}

#[track_caller]
fn close(found: f64, by_hand: f64, what: &str) {
    assert!(
        (found - by_hand).abs() <= 0.05 * by_hand,
        "{what}: {found:e}, by hand {by_hand:e}"
    );
}

/// Batch 128, bf16 (2 bytes). What a layer's passes read and write of its images:
///
/// | pass | x | y |
/// |---|---|---|
/// | convolution | read | written |
/// | normalize, with ReLU | | read, written |
/// | backward reduce | | read twice: the convolution's result and the gradient |
/// | backward data of BatchNorm | | read twice, written |
/// | backward data of the convolution | written | read |
/// | backward weight | read | read |
///
/// That is 3 times x and 10 times y where there is a gradient for x, else 2 times x and 9 times y. Weights, and what
/// belongs to channels, are far below a percent. The moments of y leave 3 numbers of 4 bytes for each of 64 channels and
/// each tile of 128 rows, the sums of the backward pass 2 of 8 bytes for each of 65536 threads of 4 channels, and the
/// gradient of the weights 4 bytes a weight and part: what is moved beyond the fewest bytes.
#[test]
fn three_layers_of_resnet_50_agree_with_a_count_by_hand() {
    let folder = tempfile::tempdir().unwrap();
    let (model, layers) = write(folder.path());
    let report = report(&model, FLAGS);
    let train = step(&report, "train");

    // 7x7, stride 2, 3 -> 64 channels, which tensor cores take as 8, of 224x224 pixels:
    //   x = 128 * 224 * 224 * 8 * 2 bytes  = 102 760 448
    //   y = 128 * 112 * 112 * 64 * 2 bytes = 205 520 896
    //   2 x + 9 y = 2 055 208 960 bytes
    //   128 * 112 * 112 * 64 outputs * 7 * 7 * 8 multiply-adds = 40 282 095 616, two directions, two operations
    let stem = [4.0 * 40_282_095_616.0, 2_055_208_960.0];
    // 3x3, 64 -> 64 channels, of 56x56 pixels:
    //   x = y = 128 * 56 * 56 * 64 * 2 bytes = 51 380 224
    //   3 x + 10 y = 667 942 912 bytes
    //   25 690 112 outputs * 3 * 3 * 64 multiply-adds = 14 797 504 512, three directions, two operations
    let square = [6.0 * 14_797_504_512.0, 667_942_912.0];
    // 1x1, 256 -> 64 channels, of 56x56 pixels:
    //   x = 128 * 56 * 56 * 256 * 2 bytes = 205 520 896
    //   3 x + 10 y = 1 130 364 928 bytes
    //   25 690 112 outputs * 256 multiply-adds = 6 576 668 672, three directions, two operations
    let narrowing = [6.0 * 6_576_668_672.0, 1_130_364_928.0];

    // The second block of the first stage begins with the sixth layer: the stem, and four with a shortcut come before.
    let mut totals = [[0.0; 2]; 2];
    for (name, layer, [flop, bytes]) in [
        ("7x7", &layers[0], stem),
        ("3x3", &layers[2], square),
        ("1x1", &layers[5], narrowing),
    ] {
        let [found_flop, moved, least] = counted(train, layer);
        close(found_flop, flop, &format!("operations of {name}"));
        close(moved, bytes, &format!("bytes of {name}"));
        close(least, bytes, &format!("fewest bytes of {name}"));
        assert!(least < moved, "{name}");
        totals[0] = [totals[0][0] + found_flop, totals[0][1] + moved];
        totals[1] = [totals[1][0] + flop, totals[1][1] + bytes];
    }
    let [found, by_hand] = totals;
    close(found[0], by_hand[0], "operations of all three");
    close(found[1], by_hand[1], "bytes of all three");
}

/// The whole step. Inference takes 4.089e9 multiply-adds a sample, of which the stem has 112 * 112 * 64 * 7 * 7 * 3, or
/// 0.118e9. Training has three directions, but no gradient for the stem's input; its channels are 8 instead of 3.
#[test]
fn all_launches_of_resnet_50_are_listed() {
    let folder = tempfile::tempdir().unwrap();
    let (model, layers) = write(folder.path());
    assert_eq!(layers.len(), 53);
    let count = check_launches(&model, FLAGS);
    let report = report(&model, FLAGS);
    let totals = &step(&report, "train")["totals"];
    assert_eq!(count as f64, number(totals, "launches"));
    let stem = 0.118e9;
    let others = 4.089e9 - stem;
    close(
        number(totals, "flop"),
        2.0 * 128.0 * (3.0 * others + 2.0 * stem * 8.0 / 3.0),
        "operations of a step",
    );
}
