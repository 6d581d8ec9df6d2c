//! Builds the SyncBNNet in Rust, compiles it, trains it on the digits with 4 ranks and 1 image per rank, and
//! prints its validation accuracy.
//!
//! ```text
//! cargo run --release --example syncbn_net -- [FOLDER]
//! ```
//!
//! FOLDER (default `target/syncbn_net`) receives the executable, its log and the weights.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use syncbn_compile::ir::builder::Builder;
use syncbn_compile::ir::{DType, Graph, GraphError, Value};
use syncbn_compile::{Options, compile};

/// The sizes of a SyncBNNet.
struct SyncBnNet {
    /// Channels of the stem.
    stem: usize,
    /// Channels, blocks and the first block's stride of every stage.
    stages: Vec<(usize, usize, usize)>,
    /// Classes of the head.
    classes: usize,
}

impl SyncBnNet {
    /// The network for images of `channels` x `size` x `size`.
    fn build(&self, channels: usize, size: usize) -> Result<Graph, GraphError> {
        let mut net = Builder::new("syncbn_net", DType::F32);
        let x = net.input("x", &[channels, size, size])?;
        let mut x = conv_bn(&mut net, "stem", x, self.stem, 3, 1)?;
        x = net.silu(x)?;
        let mut width = self.stem;
        let mut number = 0;
        for &(out, blocks, stride) in &self.stages {
            for block in 0..blocks {
                let stride = if block == 0 { stride } else { 1 };
                let name = format!("stages.{number}");
                x = net.scope(&name, |net| residual_block(net, x, width, out, stride))?;
                width = out;
                number += 1;
            }
        }
        let pooled = net.global_average_pool(x)?;
        let features = net.flatten(pooled)?;
        let logits = net.linear("fc", features, self.classes).build()?;
        net.output("logits", logits);
        Ok(net.finish())
    }
}

/// Convolution without bias, then BatchNorm.
fn conv_bn(
    net: &mut Builder,
    name: &str,
    x: Value,
    out: usize,
    kernel: usize,
    stride: usize,
) -> Result<Value, GraphError> {
    net.scope(name, |net| {
        let y = net
            .conv2d("conv", x, out)
            .kernel(kernel)
            .stride(stride)
            .padding(kernel / 2)
            .bias(false)
            .build()?;
        net.batch_norm("bn", y)
    })
}

/// Two 3x3 convolutions; a 1x1 convolution projects the shortcut where shapes differ.
fn residual_block(
    net: &mut Builder,
    x: Value,
    width: usize,
    out: usize,
    stride: usize,
) -> Result<Value, GraphError> {
    let y = conv_bn(net, "conv1", x, out, 3, stride)?;
    let y = net.silu(y)?;
    let y = conv_bn(net, "conv2", y, out, 3, 1)?;
    let shortcut = match stride != 1 || width != out {
        true => conv_bn(net, "shortcut", x, out, 1, stride)?,
        false => x,
    };
    let sum = net.add(y, shortcut)?;
    net.silu(sum)
}

#[allow(clippy::print_stdout)]
fn main() -> Result<(), Box<dyn Error>> {
    let folder = env::args_os()
        .nth(1)
        .map_or_else(|| PathBuf::from("target/syncbn_net"), PathBuf::from);
    fs::create_dir_all(&folder)?;
    let net = SyncBnNet {
        stem: 16,
        stages: vec![(16, 1, 1), (32, 1, 2), (64, 1, 2)],
        classes: 10,
    };
    let graph = net.build(1, 8)?;
    let executable = folder.join("syncbn_net.bin");
    compile(
        &graph,
        &Options {
            batch: 8,
            ..Options::default()
        },
    )?
    .write_executable(&executable)?;

    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let log = folder.join("log.jsonl");
    let status = Command::new(&executable)
        .args([
            "train", "--ranks", "4", "--batch", "1", "--epochs", "2", "--lr", "0.05", "--seed", "0",
        ])
        .arg("--data")
        .arg(data.join("digits_train.npz"))
        .arg("--val")
        .arg(data.join("digits_val.npz"))
        .arg("--log")
        .arg(&log)
        .arg("--save")
        .arg(folder.join("weights.safetensors"))
        .status()?;
    if !status.success() {
        return Err(format!("training ended with {status}").into());
    }
    let last: serde_json::Value = fs::read_to_string(&log)?
        .lines()
        .rev()
        .find(|line| line.contains("epoch_end"))
        .map_or_else(
            || Err("the log has no epoch line".into()),
            |line| Ok::<_, Box<dyn Error>>(serde_json::from_str(line)?),
        )?;
    println!("validation accuracy after two epochs: {}", last["val_accuracy"]);
    Ok(())
}
