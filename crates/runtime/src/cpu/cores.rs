//! The cores of this process.

/// Cores that the threads of this process have, of which `processes` run on this machine: those of its affinity mask, cut
/// to its cgroup's quota, and to an equal share where nobody gave each process cores of its own.
pub fn count(processes: usize) -> usize {
    let available = std::thread::available_parallelism().map_or(1, usize::from);
    // SAFETY: asks for a number.
    let online = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) };
    let online = usize::try_from(online).unwrap_or(available);
    share(available, affinity().unwrap_or(online), online, processes)
}

/// Cores of the affinity mask.
fn affinity() -> Option<usize> {
    // SAFETY: all zeros is an empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the system writes a set of this size for this thread.
    let status = unsafe { libc::sched_getaffinity(0, size_of_val(&set), &raw mut set) };
    // SAFETY: the set was written.
    (status == 0).then(|| unsafe { libc::CPU_COUNT(&set) as usize })
}

/// `available` cores are what `affinity` and quota leave of those `online`.
fn share(available: usize, affinity: usize, online: usize, processes: usize) -> usize {
    let is_own = affinity < online && available == affinity;
    match is_own {
        true => available,
        false => (available / processes.max(1)).max(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_share_what_overlaps() {
        assert_eq!(share(16, 16, 16, 1), 16);
        assert_eq!(share(16, 16, 16, 4), 4);
        // Each process has its own mask.
        assert_eq!(share(4, 4, 16, 4), 4);
        // A quota is that of all processes in the group.
        assert_eq!(share(8, 16, 32, 4), 2);
        assert_eq!(share(2, 2, 2, 4), 1);
    }

    #[test]
    fn there_is_a_core() {
        assert!(count(1) >= 1);
        assert!(affinity().unwrap() >= 1);
        assert_eq!(count(usize::MAX).min(affinity().unwrap()), count(usize::MAX));
    }
}
