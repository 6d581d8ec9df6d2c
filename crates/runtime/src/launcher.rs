//! The environment of a launcher: torchrun, Slurm, Open MPI, or another MPI's process manager.

use crate::error::{Error, Result};

/// Finds a launcher's world size: its name, the variable that told, and the size.
fn world(variable: impl Fn(&str) -> Option<String>) -> Option<(&'static str, &'static str, u64)> {
    let all = |names: &[&str]| names.iter().all(|name| variable(name).is_some());
    let size = |launcher, name: &'static str| {
        let size = variable(name)?.trim().parse().ok()?;
        Some((launcher, name, size))
    };
    // An incomplete torchrun set is a leftover of something else.
    if all(&["RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"]) {
        return size("torchrun", "WORLD_SIZE");
    }
    if all(&["OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"]) {
        return size("mpirun", "OMPI_COMM_WORLD_SIZE");
    }
    // Outside of a launched step (in a batch script or an allocation) Slurm's count says nothing about
    // this process.
    if all(&["SLURM_PROCID", "SLURM_NTASKS", "SLURM_STEP_ID"]) {
        return size("srun", "SLURM_NTASKS");
    }
    if all(&["PMI_RANK", "PMI_SIZE"]) {
        return size("mpiexec", "PMI_SIZE");
    }
    None
}

/// Refuses to be one of several processes, as CPU ranks live in one process.
pub fn refuse_many_processes(variable: impl Fn(&str) -> Option<String>) -> Result<()> {
    match world(variable) {
        Some((launcher, name, size)) if size > 1 => Err(Error::unsupported(format!(
            "{launcher} started {size} processes ({name}={size}), but the CPU ranks of this executable live in one process"
        ))
        .note(format!("each of the {size} processes would train its own copy of the network"))
        .help("start the executable once, with `--ranks N`; or give --no-launcher-env to ignore the launcher's variables")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(variables: &[(&str, &str)]) -> Result<()> {
        refuse_many_processes(|name| {
            variables
                .iter()
                .find(|(known, _)| *known == name)
                .map(|(_, value)| value.to_string())
        })
    }

    #[test]
    fn complete_sets_above_1_are_refused() {
        let torchrun = |size| {
            [
                ("RANK", "0"),
                ("WORLD_SIZE", size),
                ("LOCAL_RANK", "0"),
                ("MASTER_ADDR", "a"),
                ("MASTER_PORT", "1"),
            ]
        };
        let error = check(&torchrun("4")).unwrap_err();
        assert_eq!(error.kind.exit_code(), 3);
        assert!(error.message.contains("torchrun") && error.message.contains("WORLD_SIZE=4"));
        check(&torchrun("1")).unwrap();
        check(&torchrun("4")[..4]).unwrap();
        check(&[("SLURM_PROCID", "0"), ("SLURM_NTASKS", "8")]).unwrap();
        let error = check(&[
            ("SLURM_PROCID", "0"),
            ("SLURM_NTASKS", "8"),
            ("SLURM_STEP_ID", "0"),
        ]);
        assert!(error.unwrap_err().message.contains("srun"));
        assert!(check(&[("PMI_RANK", "0"), ("PMI_SIZE", "2")]).is_err());
        assert!(check(&[("OMPI_COMM_WORLD_RANK", "0"), ("OMPI_COMM_WORLD_SIZE", "2")]).is_err());
        check(&[]).unwrap();
    }
}
