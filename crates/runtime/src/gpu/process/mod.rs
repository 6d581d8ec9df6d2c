//! Which rank of which run this process is, or whether it starts others that are.

mod local;

use std::sync::{Arc, atomic::AtomicBool};

pub use local::launch;
use syncbn_abi::Model;

use super::{
    Kind,
    control::{self, Control},
};
use crate::{
    error::{Error, Result},
    gpu::{self, part::GpuPart},
    launcher::{self, Address, Member},
};

/// Set to 1, it allows several ranks on one GPU; NCCL 2.30 reads it.
const MULTI_RANK: &str = "NCCL_MULTI_RANK_GPU_ENABLE";

/// The variables by which the local launcher tells a process who it is.
mod variables {
    pub const RANK: &str = "SYNCBN_RANK";
    pub const RANKS: &str = "SYNCBN_RANKS";
    /// `host:port` of rank 0; absent on rank 0 itself, whose standard input is the socket.
    pub const ADDRESS: &str = "SYNCBN_CONTROL";
    /// The launcher's process.
    pub const LAUNCHER: &str = "SYNCBN_LAUNCHER";
}

/// What this process does in its run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// The only rank.
    Alone,
    /// Starts so many ranks on this machine.
    Launch(usize),
    /// One of several ranks.
    Member(Member),
}

/// The place of this process among those of the run.
#[derive(Debug, Clone, Default)]
pub struct Seat {
    /// The rank.
    pub rank: usize,
    /// Number among the ranks of this machine, which chooses the GPU.
    pub local_rank: usize,
    /// The connection with the other processes; None if there are no others.
    pub control: Option<Arc<Control>>,
}

impl Seat {
    /// Takes the place of `member` in a run of `model`: waits until all ranks have joined.
    pub fn take(member: &Member, model: &Model, signalled: &Arc<AtomicBool>) -> Result<Self> {
        if let Some(launcher) = std::env::var(variables::LAUNCHER)
            .ok()
            .and_then(|id| id.parse().ok())
        {
            local::end_with(launcher)?;
        }
        Ok(Seat {
            rank: member.rank,
            local_rank: member.local_rank,
            control: Some(control::join(member, model, signalled)?),
        })
    }
}

/// What this process does, by the number of ranks that the command line asks for and the variables of a
/// launcher. `foreign` tells whether other launchers than our own count.
pub fn role(
    part: &GpuPart,
    kind: Kind,
    requested: Option<usize>,
    foreign: bool,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Role> {
    if let Some(member) = launched(&variable)? {
        return Ok(Role::Member(member));
    }
    let multiple = variable(MULTI_RANK).is_some_and(|value| value == "1");
    if let Some(world) = launcher::world(&variable).filter(|world| foreign && world.size > 1) {
        let member = launcher::member(&world, &variable)?;
        if let Some(ranks) = requested.filter(|ranks| *ranks != member.ranks) {
            let (launcher, name, size) = (world.launcher, world.size_name, world.size);
            return Err(Error::user(format!(
                "the command line asks for {ranks} ranks, but {launcher} started {size} ({name}={size})"
            ))
            .help("leave --ranks away, or give --no-launcher-env to ignore the launcher's variables"));
        }
        check_visible(part, kind, member.local_rank + 1, multiple)?;
        return Ok(Role::Member(member));
    }
    let ranks = match requested {
        Some(ranks) => ranks,
        None => gpu::visible(part, kind)?,
    };
    check_visible(part, kind, ranks, multiple)?;
    Ok(if ranks == 1 {
        Role::Alone
    } else {
        Role::Launch(ranks)
    })
}

/// Refuses more local ranks than GPUs, unless `multiple` ranks may share one.
fn check_visible(part: &GpuPart, kind: Kind, wanted: usize, multiple: bool) -> Result<()> {
    if kind != Kind::Cuda {
        return Ok(());
    }
    let visible = gpu::visible(part, kind)?;
    if wanted <= visible || multiple {
        return Ok(());
    }
    Err(Error::environment(format!(
        "{wanted} ranks on this machine need as many GPUs, but it shows {visible}"
    ))
    .help(format!(
        "use fewer --ranks, or set {MULTI_RANK}=1 if NCCL is 2.30 or later"
    )))
}

/// Who the local launcher says this process is.
fn launched(variable: impl Fn(&str) -> Option<String>) -> Result<Option<Member>> {
    let number = |name: &str| variable(name).and_then(|text| text.parse::<usize>().ok());
    let (Some(rank), Some(ranks)) = (number(variables::RANK), number(variables::RANKS)) else {
        return Ok(None);
    };
    let malformed = || Error::internal("the launcher's variables are malformed");
    let address = match rank {
        0 => Address::Inherited,
        _ => {
            let text = variable(variables::ADDRESS).ok_or_else(malformed)?;
            let (host, port) = text.rsplit_once(':').ok_or_else(malformed)?;
            Address::At {
                host: host.to_string(),
                port: port.parse().map_err(|_| malformed())?,
            }
        }
    };
    Ok(Some(Member {
        rank,
        ranks,
        local_rank: rank,
        address,
    }))
}
