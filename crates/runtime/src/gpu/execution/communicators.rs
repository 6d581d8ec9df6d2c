//! The communicators of a rank: one for each set of ranks that some collective of the model sums over, and with overlap
//! others for gradients, whose collectives run beside those of BatchNorm.

use std::{collections::BTreeMap, ffi::c_void};

use syncbn_abi::Collective;

use crate::{
    error::{Error, Result},
    gpu::{control::Control, device::Device},
};

/// Joins this rank's communicators; returns one for each collective, in order. Called by all ranks.
pub fn join(
    device: &dyn Device,
    control: &Control,
    (rank, ranks): (usize, usize),
    collectives: &[Collective],
    overlap: bool,
) -> Result<Vec<*mut c_void>> {
    let mut joined = BTreeMap::new();
    let kind = |one: &Collective| (one.group, one.gradients && overlap);
    for (group, gradients) in collectives.iter().map(kind) {
        if joined.contains_key(&(group, gradients)) {
            continue;
        }
        let size = if group == 0 { ranks } else { group as usize };
        let first = rank / size * size;
        let peers: Vec<usize> = (first..first + size).collect();
        let id = exchange(device, control, (rank, first), ranks)?;
        joined.insert(
            (group, gradients),
            device.communicator(&id, rank - first, &peers)?,
        );
    }
    // Nobody starts a step while another rank is still joining.
    control.barrier()?;
    let found = collectives.iter().filter_map(|one| joined.get(&kind(one)));
    Ok(found.copied().collect())
}

/// The identifier that rank `first` makes for the communicator of this rank.
fn exchange(
    device: &dyn Device,
    control: &Control,
    (rank, first): (usize, usize),
    ranks: usize,
) -> Result<Vec<u8>> {
    let own = if rank == first {
        device.unique_id()?
    } else {
        Vec::new()
    };
    let malformed = |cause: serde_json::Error| Error::internal(format!("malformed identifiers: {cause}"));
    let all = serde_json::to_vec(&control.gather(own)?).map_err(malformed)?;
    let all: Vec<Vec<u8>> = serde_json::from_slice(&control.broadcast(all)?).map_err(malformed)?;
    match all.into_iter().nth(first) {
        Some(id) if first < ranks => Ok(id),
        _ => Err(Error::internal("a communicator has no identifier")),
    }
}
