//! The GPU target without a GPU: its kernels and host code run under the emulator, a process for each rank.

mod assembly;
mod bases;
mod corpus;
mod devices;
mod dialect;
mod modes;
mod mutants;
mod random;
mod rounding;
mod scripts;
mod sharing;
mod steps;
mod strict;
mod targets;

/// All of `tests/fixtures/dev`.
const NETWORKS: [&str; 8] = [
    "syncbnnet_small",
    "syncbnnet_w4",
    "syncbnnet_w8",
    "syncbnnet_w12",
    "resnet18_narrow",
    "mobilenetv2_narrow",
    "densenet_like",
    "mlp_bn1d",
];
