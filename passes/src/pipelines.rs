//! The one list of all passes, and the pipelines that put them in order.

use crate::add_loss::AddLoss;
use crate::assign_layouts::AssignLayouts;
use crate::bn_to_syncbn::BnToSyncBn;
use crate::canonicalize::Canonicalize;
use crate::choose_schedules::ChooseSchedules;
use crate::combine_all_reduce::CombineAllReduce;
use crate::differentiate::Differentiate;
use crate::error::{Fault, Faults, PassError};
use crate::fold_batch_norm::FoldBatchNorm;
use crate::fold_constants::FoldConstants;
use crate::fuse_conv_syncbn_silu::FuseConvSyncBnSilu;
use crate::insert_gradient_all_reduce::InsertGradientAllReduce;
use crate::lower_precision::LowerPrecision;
use crate::pad_channels::PadChannels;
use crate::pass::Pass;
use crate::plan_memory::PlanMemory;
use crate::recognize_composites::RecognizeComposites;
use crate::schedule::Schedule;
use crate::set_batch_norm_mode::SetBatchNormMode;
use crate::share_moments::ShareMoments;

/// All passes.
pub const PASSES: &[&dyn Pass] = &[
    &Canonicalize,
    &FoldConstants,
    &RecognizeComposites,
    &SetBatchNormMode,
    &AddLoss,
    &Differentiate,
    &BnToSyncBn,
    &InsertGradientAllReduce,
    &ShareMoments,
    &FuseConvSyncBnSilu,
    &CombineAllReduce,
    &FoldBatchNorm,
    &LowerPrecision,
    &PadChannels,
    &ChooseSchedules,
    &AssignLayouts,
    &Schedule,
    &PlanMemory,
];

/// A name for several passes in order.
#[derive(Debug, Clone, Copy)]
pub struct Pipeline {
    /// Name on the command line.
    pub name: &'static str,
    /// One line for `--pass-help`.
    pub summary: &'static str,
    /// Names of passes and of earlier pipelines.
    pub passes: &'static [&'static str],
}

/// All pipelines. A pipeline may name those before it.
pub const PIPELINES: &[Pipeline] = &[
    // Constants are folded after the noise is gone, so that a dropout's warning is not lost, and before
    // composites are looked for, which they would hide.
    Pipeline {
        name: "clean",
        summary: "what training and inference start with",
        passes: &[
            "canonicalize",
            "fold-constants",
            "canonicalize",
            "recognize-composites",
        ],
    },
    // `set-batch-norm-mode` comes before `differentiate`: the gradient is that of the training form, and frozen
    // scales have none. `bn-to-syncbn` comes after it, because the pair of sums of the backward pass has no
    // simpler derivation. `insert-gradient-all-reduce` needs to see which gradients are reduced already.
    // `share-moments` comes after both, so that the collectives it finds are all there are, and before `fuse-
    // conv-syncbn-silu`, which puts the moments of a concat's parts into the convolutions that compute them.
    // That pass comes after the first two, because it fuses forward and backward together. `combine-all-reduce`
    // comes after it, because before it the sums of a shortcut wait for those of the main branch. `lower-
    // precision` comes when no pass makes gradients or folds constants any more, which all know one element type,
    // and `pad-channels` when no pass looks for convolutions next to other nodes, since it puts slices between them.
    // `choose-schedules` comes when all convolutions are there, and before `assign-layouts`, because layouts follow
    // from schedules; that pass comes when no other adds nodes any more. `schedule` orders what is there then, and
    // `plan-memory` is last: lifetimes follow from the order, workspaces from schedules, and any change after it would
    // need another plan.
    Pipeline {
        name: "train",
        summary: "a network to one training step",
        passes: &[
            "clean",
            "set-batch-norm-mode",
            "add-loss",
            "differentiate",
            "canonicalize",
            "fold-constants",
            "bn-to-syncbn",
            "insert-gradient-all-reduce",
            "share-moments",
            "fuse-conv-syncbn-silu",
            "combine-all-reduce",
            "lower-precision",
            "pad-channels",
            "choose-schedules",
            "assign-layouts",
            "schedule",
            "plan-memory",
        ],
    },
    // `fold-batch-norm` comes before `bn-to-syncbn`, which only has to treat what normalises with its own
    // statistics (weight standardisation).
    Pipeline {
        name: "infer",
        summary: "a network to inference",
        passes: &[
            "clean",
            "set-batch-norm-mode",
            "fold-batch-norm",
            "bn-to-syncbn",
            "canonicalize",
            "fold-constants",
            "lower-precision",
            "pad-channels",
            "choose-schedules",
            "assign-layouts",
            "schedule",
            "plan-memory",
        ],
    },
];

/// The passes that a list of names stands for, pipelines expanded.
pub fn expand<S: AsRef<str>>(names: &[S]) -> Result<Vec<&'static dyn Pass>, PassError> {
    let mut passes = Vec::new();
    let mut faults = Faults::default();
    for name in names {
        let name = name.as_ref();
        if let Some(&pass) = PASSES.iter().find(|p| p.name() == name) {
            passes.push(pass);
        } else if let Some(pipeline) = PIPELINES.iter().find(|p| p.name == name) {
            passes.extend(expand(pipeline.passes)?);
        } else {
            faults.push(unknown("--passes", name));
        }
    }
    faults.check()?;
    Ok(passes)
}

/// Fails when there is no pass of this name, which `flag` gave.
pub fn check_name(flag: &str, name: &str) -> Result<(), PassError> {
    match PASSES.iter().any(|p| p.name() == name) {
        true => Ok(()),
        false => Err(unknown(flag, name).into()),
    }
}

fn unknown(flag: &str, name: &str) -> Fault {
    let passes = PASSES.iter().map(|p| p.name());
    let mut known: Vec<&str> = passes.collect();
    if flag == "--passes" {
        known.extend(PIPELINES.iter().map(|p| p.name));
    }
    Fault::user(format!("there is no pass \"{name}\""))
        .at(format!("{flag} {name}"))
        .help(format!("known are {}", known.join(", ")))
}

/// The text of `--pass-help`.
pub fn help() -> String {
    let mut text = String::from("Passes:\n");
    for pass in PASSES {
        text += &format!("  {:28} {}\n", pass.name(), pass.summary());
    }
    text += "\nPipelines:\n";
    for pipeline in PIPELINES {
        text += &format!(
            "  {:28} {}: {}\n",
            pipeline.name,
            pipeline.summary,
            pipeline.passes.join(", ")
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_pipelines_expand() {
        let passes = PASSES.iter().map(|p| p.name());
        let mut names: Vec<&str> = passes.chain(PIPELINES.iter().map(|p| p.name)).collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
        for pipeline in PIPELINES {
            assert!(!expand(&[pipeline.name]).unwrap().is_empty());
        }
        let Err(error) = expand(&["no-such-pass"]) else {
            panic!("an unknown pass was found");
        };
        assert!(error.to_string().contains("canonicalize"), "{error}");
    }
}
