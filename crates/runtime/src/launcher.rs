//! The environment of a launcher: torchrun, Slurm, Open MPI, or another MPI's process manager. It says which of several
//! ranks a process is.

use crate::error::{Error, Result};

/// Where ports are taken from that no variable names.
const FIRST_PORT: u64 = 20_000;
/// How many.
const PORTS: u64 = 10_000;

/// One of several ranks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Which one.
    pub rank: usize,
    /// Of how many.
    pub ranks: usize,
    /// Number among the ranks of this machine.
    pub local_rank: usize,
    /// Where rank 0 listens.
    pub address: Address,
}

/// Where rank 0 listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// The standard input of this process, rank 0, is the listening socket.
    Inherited,
    /// A port of a host.
    At {
        /// Name or number of the host.
        host: String,
        /// TCP port.
        port: u16,
    },
}

/// What a launcher's variables say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct World {
    /// Name of the launcher.
    pub launcher: &'static str,
    /// The variable with the size.
    pub size_name: &'static str,
    /// Number of processes.
    pub size: u64,
    rank_name: &'static str,
    /// Variables with the number among the processes of this machine.
    local_rank_names: &'static [&'static str],
    /// Variables with the number of processes on this machine.
    local_size_names: &'static [&'static str],
}

/// Finds a launcher's variables.
pub fn world(variable: impl Fn(&str) -> Option<String>) -> Option<World> {
    let all = |names: &[&str]| names.iter().all(|name| variable(name).is_some());
    let found = |launcher, rank_name, size_name, local_rank_names, local_size_names| {
        let size = variable(size_name)?.trim().parse().ok()?;
        Some(World {
            launcher,
            size_name,
            size,
            rank_name,
            local_rank_names,
            local_size_names,
        })
    };
    // An incomplete torchrun set is a leftover of something else.
    if all(&["RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"]) {
        return found(
            "torchrun",
            "RANK",
            "WORLD_SIZE",
            &["LOCAL_RANK"],
            &["LOCAL_WORLD_SIZE"],
        );
    }
    if all(&["OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"]) {
        return found(
            "mpirun",
            "OMPI_COMM_WORLD_RANK",
            "OMPI_COMM_WORLD_SIZE",
            &["OMPI_COMM_WORLD_LOCAL_RANK"],
            &["OMPI_COMM_WORLD_LOCAL_SIZE"],
        );
    }
    // Outside of a launched step (in a batch script or an allocation) Slurm's count says nothing about
    // this process.
    if all(&["SLURM_PROCID", "SLURM_NTASKS", "SLURM_STEP_ID"]) {
        return found("srun", "SLURM_PROCID", "SLURM_NTASKS", &["SLURM_LOCALID"], &[]);
    }
    if all(&["PMI_RANK", "PMI_SIZE"]) {
        let (local_rank, local_size) = (
            &["PMI_LOCAL_RANK", "MPI_LOCALRANKID"],
            &["PMI_LOCAL_SIZE", "MPI_LOCALNRANKS"],
        );
        return found("mpiexec", "PMI_RANK", "PMI_SIZE", local_rank, local_size);
    }
    None
}

/// How many processes a launcher has started on this machine, as far as its variables tell; at least this one.
pub fn local_processes(variable: impl Fn(&str) -> Option<String>) -> usize {
    let number = |name: &&str| variable(name)?.trim().parse::<usize>().ok();
    let world = world(&variable);
    let count = world.and_then(|world| world.local_size_names.iter().find_map(number));
    count.unwrap_or(1).max(1)
}

/// Refuses to be one of several processes, as CPU ranks live in one process.
pub fn refuse_many_processes(variable: impl Fn(&str) -> Option<String>) -> Result<()> {
    match world(variable) {
        Some(World { launcher, size_name, size, .. }) if size > 1 => Err(Error::unsupported(format!(
            "{launcher} started {size} processes ({size_name}={size}), but the CPU ranks of this executable live in one process"
        ))
        .note(format!("each of the {size} processes would train its own copy of the network"))
        .help("start the executable once, with `--ranks N`; or give --no-launcher-env to ignore the launcher's variables")),
        _ => Ok(()),
    }
}

/// The rank that a launcher's variables make of this process.
pub fn member(world: &World, variable: impl Fn(&str) -> Option<String>) -> Result<Member> {
    let number = |name: &str| variable(name).and_then(|text| text.trim().parse::<usize>().ok());
    let malformed = |name: &str| Error::user(format!("{name} of {} is malformed", world.launcher));
    let first = |names: &[&str]| names.iter().find_map(|name| number(name));
    let rank = number(world.rank_name).ok_or_else(|| malformed(world.rank_name))?;
    let ranks = world.size as usize;
    if rank >= ranks {
        return Err(malformed(world.rank_name));
    }
    let local_rank = first(world.local_rank_names);
    let local = first(world.local_size_names) == Some(ranks);
    Ok(Member {
        rank,
        ranks,
        local_rank: local_rank.unwrap_or(rank),
        address: address(world, local, variable)?,
    })
}

/// Where rank 0 listens. `local` tells that all ranks are on this machine.
fn address(world: &World, local: bool, variable: impl Fn(&str) -> Option<String>) -> Result<Address> {
    let port = |name: &str| match variable(name) {
        None => Ok(None),
        Some(text) => match text.trim().parse::<u16>() {
            Ok(port) => Ok(Some(port)),
            Err(_) => Err(Error::user(format!("{name}={text} is not a port"))),
        },
    };
    let own_host = variable("SYNCBN_MASTER_ADDR");
    let own_port = port("SYNCBN_MASTER_PORT")?;
    let help =
        "set SYNCBN_MASTER_ADDR and SYNCBN_MASTER_PORT to rank 0's host and a free port of it, on all ranks";
    let (host, derived) = match world.launcher {
        // The launcher itself listens at MASTER_PORT.
        "torchrun" => (
            variable("MASTER_ADDR"),
            port("MASTER_PORT")?.map(|port| port.wrapping_add(1)),
        ),
        "srun" => {
            let list = ["SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST"]
                .iter()
                .find_map(|name| variable(name));
            let first = list.as_deref().map(first_host);
            let job = variable("SLURM_JOB_ID").and_then(|id| id.trim().parse::<u64>().ok());
            let step = variable("SLURM_STEP_ID").and_then(|id| id.trim().parse::<u64>().ok());
            let number = job.map(|job| job.wrapping_mul(31).wrapping_add(step.unwrap_or(0)));
            (
                first.or_else(|| variable("SLURM_LAUNCH_NODE_IPADDR")),
                number.map(derived_port),
            )
        }
        _ => {
            let name = variable("PMIX_NAMESPACE").or_else(|| variable("PMI_JOBID"));
            let number = name.map(|name| {
                name.bytes()
                    .fold(7_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()))
            });
            // The ranks of one machine have one parent, the launcher's process there.
            let parent = local.then(|| std::os::unix::process::parent_id().into());
            (
                local.then(|| "127.0.0.1".to_string()),
                number.or(parent).map(derived_port),
            )
        }
    };
    let lacks = |what: &str| {
        let launcher = world.launcher;
        Error::environment(format!("the variables of {launcher} do not tell rank 0's {what}")).help(help)
    };
    Ok(Address::At {
        host: own_host.or(host).ok_or_else(|| lacks("host"))?,
        port: own_port.or(derived).ok_or_else(|| lacks("port"))?,
    })
}

fn derived_port(number: u64) -> u16 {
    (FIRST_PORT + number % PORTS) as u16
}

/// The first host of a list in Slurm's form: `node[01-04,07],login` begins with `node01`.
fn first_host(list: &str) -> String {
    let name = list.find([',', '[']).unwrap_or(list.len());
    let (prefix, rest) = list.split_at(name);
    let Some(ranges) = rest.strip_prefix('[') else {
        return prefix.to_string();
    };
    let (ranges, after) = ranges.split_once(']').unwrap_or((ranges, ""));
    let number = ranges.split([',', '-']).next().unwrap_or_default();
    let suffix = after.split(',').next().unwrap_or_default();
    format!("{prefix}{number}{suffix}")
}

#[cfg(test)]
mod tests;
