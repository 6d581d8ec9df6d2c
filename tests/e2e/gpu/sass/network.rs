//! A network whose kernels are of all kinds that image networks commonly have.

use crate::support::net::Attribute::{Int, Ints};
use crate::support::net::Net;

/// The ONNX file of the network.
pub fn built() -> Vec<u8> {
    let mut net = Net::new(&[3, 64, 64]);
    let same = || ("pads", Ints(&[1, 1, 1, 1]));
    let halved = || ("strides", Ints(&[2, 2]));
    // A stem and a pool, as in ResNet.
    let x = net.conv_bn_relu("x", &[64, 3, 7, 7], &[("pads", Ints(&[3, 3, 3, 3])), halved()]);
    let x = net.node(
        "MaxPool",
        &[&x],
        &[("kernel_shape", Ints(&[3, 3])), same(), halved()],
    );
    // Blocks with ReLU and SiLU, the second one with a projected shortcut.
    let y = net.conv_bn_relu(&x, &[64, 64, 3, 3], &[same()]);
    let y = net.conv(&y, &[64, 64, 3, 3], &[same()]);
    let y = net.bn(&y, 64);
    let x = net.node("Add", &[&y, &x], &[]);
    let x = net.node("Relu", &[&x], &[]);
    let y = net.conv(&x, &[128, 64, 3, 3], &[same(), halved()]);
    let y = net.bn(&y, 128);
    let y = net.silu(&y);
    let y = net.conv(&y, &[128, 128, 3, 3], &[same()]);
    let y = net.bn(&y, 128);
    let shortcut = net.conv(&x, &[128, 64, 1, 1], &[halved()]);
    let shortcut = net.bn(&shortcut, 128);
    let x = net.node("Add", &[&y, &shortcut], &[]);
    let x = net.silu(&x);
    // Expansion, a depthwise convolution and projection, as in MobileNet.
    let x = net.conv_bn_relu(&x, &[256, 128, 1, 1], &[]);
    let x = net.conv(&x, &[256, 1, 3, 3], &[same(), ("group", Int(256))]);
    let x = net.bn(&x, 256);
    let x = net.node("Relu", &[&x], &[]);
    let x = net.conv(&x, &[32, 256, 1, 1], &[]);
    let x = net.bn(&x, 32);
    let x = net.silu(&x);
    let pool = [("kernel_shape", Ints(&[2, 2])), halved()];
    let x = net.node("AveragePool", &[&x], &pool);
    let y = net.head(&x, 32, 10);
    net.finish(&[&y])
}
