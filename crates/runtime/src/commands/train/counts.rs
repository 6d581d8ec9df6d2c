//! The rule that a trained BatchNorm needs at least two values a channel, checked before the first step.

use syncbn_abi::Model;

use crate::{
    error::{Error, Result},
    sampler::{Sampler, Share},
};

/// Number of neighbouring ranks that normalise together; None if batch statistics are not used.
pub fn group_size(mode: &str, ranks: usize) -> Option<usize> {
    match mode {
        "sync" => Some(ranks),
        "local" => Some(1),
        _ => mode
            .strip_prefix("group=")
            .and_then(|size| size.parse().ok())
            .filter(|size| *size > 0),
    }
}

/// Checks that the ranks form whole groups.
pub fn check_groups(model: &Model, ranks: usize) -> Result<()> {
    let sizes = model
        .collectives
        .iter()
        .map(|collective| collective.group as usize)
        .filter(|size| *size > 0);
    for size in sizes.chain(group_size(&model.batch_norm_mode, ranks)) {
        if !ranks.is_multiple_of(size) {
            return Err(Error::user(format!(
                "{ranks} ranks do not form groups of {size}, as --bn group={size} of the compilation asks"
            ))
            .help(format!("use a multiple of {size} as --ranks")));
        }
    }
    Ok(())
}

/// Refuses a step in which a BatchNorm would normalise a single value.
pub fn check(model: &Model, sampler: &Sampler, steps: u64) -> Result<()> {
    let last = sampler.steps_per_epoch() - 1;
    // All steps of an epoch but the last have the same counts.
    for step in [0, last] {
        if step < steps {
            check_step(model, &sampler.share(step), step)?;
        }
    }
    Ok(())
}

/// Refuses a step in which a trained BatchNorm would see a single value.
pub fn check_step(model: &Model, share: &Share, step: u64) -> Result<()> {
    let ranks = share.counts.len();
    let Some(size) = group_size(&model.batch_norm_mode, ranks) else {
        return Ok(());
    };
    for layer in model.batch_norms.iter().filter(|layer| layer.counts) {
        for (group, counts) in share.counts.chunks(size).enumerate() {
            if counts.iter().sum::<u64>() * layer.positions != 1 {
                continue;
            }
            let whose = match model.batch_norm_mode.as_str() {
                "sync" => "all ranks together".to_string(),
                "local" => format!("rank {group}"),
                _ => format!(
                    "group {group} (ranks {} to {})",
                    group * size,
                    group * size + size - 1
                ),
            };
            return Err(Error::user(format!(
                "BatchNorm \"{}\" would get a single value a channel from {whose} in step {}",
                layer.name,
                step + 1
            ))
            .note("the variance of one value is 0, and its running estimate divides by 0")
            .help("use another --batch, or --drop-last if it is an epoch's short last batch"));
        }
    }
    Ok(())
}
