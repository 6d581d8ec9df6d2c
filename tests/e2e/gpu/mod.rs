//! The GPU target without a GPU: its kernels and host code run under the emulator, a process for each rank.

mod accumulation;
mod assembly;
mod banks;
mod bases;
mod carried;
mod corpus;
mod devices;
mod dialect;
mod exports;
mod kernels;
mod kernels_by_hand;
mod kernels_text;
mod modes;
mod mutants;
mod pack;
mod random;
mod rounding;
mod sass;
mod scripts;
mod sharing;
mod steps;
mod strict;
mod survey;
mod targets;
mod workspaces;

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
