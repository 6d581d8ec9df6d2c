//! From flags to the options of a compilation.

use syncbn_ir::ops::RunningVar;
use syncbn_passes::PrintAfter;

use super::arguments::{Arguments, EmitFlag, RunningVarFlag, Switch, Target};
use super::network::Network;
use crate::target::FAST;
use crate::{Error, Options, Targets};

/// What the executable runs on: what was asked for, or else every kind of device that computes in the precision asked
/// for.
fn targets(arguments: &Arguments) -> Result<Targets, Error> {
    // Text forms of the GPU part show it whatever other parts there are.
    let text_of_gpu = arguments.emit.is_of_gpu();
    let only_cpu = arguments
        .precision
        .is_some_and(|precision| precision.everywhere && precision.products.is_none());
    let Some(asked) = &arguments.target else {
        return Ok(Targets {
            cpu: !text_of_gpu,
            cuda: !only_cpu,
            ..Targets::default()
        });
    };
    let targets = Targets {
        cpu: asked.contains(&Target::Cpu) && !text_of_gpu,
        cuda: asked.contains(&Target::Cuda),
        cuda_if_possible: false,
        emulated: asked.contains(&Target::CudaEmulated),
    };
    if only_cpu && targets.gpu() {
        return Err(Error::user(
            "--precision f64 is asked for on all targets, and GPUs do not have it",
            "give --precision cpu=f64, and cuda=P for another precision than tf32",
        ));
    }
    let only_gpu = arguments
        .precision
        .is_some_and(|precision| precision.everywhere && precision.dtype.is_none());
    if only_gpu && !targets.gpu() {
        return Err(Error::user(
            "--precision is asked for on all targets, and the CPU has f32 and f64",
            "give --precision f32 or f64, or add cuda to --target",
        ));
    }
    Ok(targets)
}

/// The options that the flags ask for, for this network.
pub fn options(arguments: &Arguments, imported: &Network) -> Result<Options, Error> {
    let own = imported.fixed_batch.filter(|&n| n > 1);
    Ok(Options {
        mode: arguments.mode,
        batch_norm: arguments.bn,
        running_var: match arguments.running_var {
            RunningVarFlag::Pytorch => RunningVar::Pytorch,
            RunningVarFlag::Population => RunningVar::Population,
        },
        loss: arguments.loss,
        loss_output: arguments.loss_output.clone(),
        batch: arguments.batch.map_or(own.unwrap_or(32), |n| n as usize),
        bucket_bytes: arguments.bucket_bytes,
        targets: targets(arguments)?,
        cpu: arguments.cpu,
        fast: FAST || arguments.emit == EmitFlag::Schedule,
        winograd: arguments.winograd == Switch::On,
        schedules: arguments.schedule.clone(),
        products: arguments
            .precision
            .and_then(|precision| precision.products)
            .unwrap_or(syncbn_mlir::Products::Tf32),
        seed: arguments.init.unwrap_or(0),
        passes: arguments.passes.clone(),
        skip: arguments.skip.clone(),
        print_after: match (arguments.print_ir_after_all, arguments.print_ir_after.is_empty()) {
            (true, _) => PrintAfter::All,
            (false, true) => PrintAfter::Nothing,
            (false, false) => PrintAfter::Passes(arguments.print_ir_after.clone()),
        },
        stop_after: arguments.stop_after.clone(),
    })
}
