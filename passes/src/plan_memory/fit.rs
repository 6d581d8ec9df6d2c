//! Offsets for buffers with lifetimes: largest first, each at the lowest offset that is free while it lives.

use super::too_large;
use crate::error::PassError;

/// A buffer in use from the first to the last position, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Buffer {
    /// First position.
    pub begin: usize,
    /// Last position.
    pub end: usize,
    /// Size in bytes, aligned.
    pub size: u64,
}

impl Buffer {
    fn meets(&self, other: &Buffer) -> bool {
        self.begin <= other.end && other.begin <= self.end
    }
}

/// The offset of every buffer, and the size of the arena. Those behind the first so many are workspaces, which are placed
/// among the others by size or, where that takes less, after all of them: then the arena is at most the largest workspace
/// larger than without any.
pub fn fit(buffers: &[Buffer], values: usize) -> Result<(Vec<u64>, u64), PassError> {
    let among = first_fit(buffers, |_| false)?;
    if values == buffers.len() {
        return Ok(among);
    }
    let after = first_fit(buffers, |i| i >= values)?;
    Ok(if after.1 < among.1 { after } else { among })
}

/// Places what is not `late` before what is. The order of equals is that of the slice.
fn first_fit(buffers: &[Buffer], late: impl Fn(usize) -> bool) -> Result<(Vec<u64>, u64), PassError> {
    let mut order: Vec<usize> = (0..buffers.len()).collect();
    order.sort_by_key(|&i| (late(i), std::cmp::Reverse(buffers[i].size), buffers[i].begin));
    let mut offsets = vec![0u64; buffers.len()];
    // By offset, so that the search ends at the first gap.
    let mut placed: Vec<(u64, usize)> = Vec::new();
    let mut total = 0u64;
    for i in order {
        let buffer = &buffers[i];
        let mut offset = 0u64;
        for &(begin, j) in placed.iter().filter(|&&(_, j)| buffers[j].meets(buffer)) {
            if begin >= offset.saturating_add(buffer.size) {
                break;
            }
            offset = offset.max(begin + buffers[j].size);
        }
        let end = offset.checked_add(buffer.size).filter(|&e| e <= i64::MAX as u64);
        total = total.max(end.ok_or_else(too_large)?);
        offsets[i] = offset;
        let next = placed.partition_point(|&other| other <= (offset, i));
        placed.insert(next, (offset, i));
    }
    Ok((offsets, total))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buffers<const N: usize>(all: [(usize, usize, u64); N]) -> [Buffer; N] {
        all.map(|(begin, end, size)| Buffer { begin, end, size })
    }

    #[test]
    fn buffers_that_never_meet_share_an_offset() {
        let buffers = buffers([(0, 1, 64), (1, 2, 128), (2, 3, 64), (3, 4, 192)]);
        let (offsets, total) = fit(&buffers, 4).unwrap();
        assert_eq!(offsets, [128, 0, 192, 0]);
        assert_eq!(total, 256);
    }

    #[test]
    fn a_workspace_takes_a_hole() {
        let buffers = buffers([(0, 1, 64), (1, 2, 128), (2, 3, 64), (3, 4, 192), (4, 4, 64)]);
        let (offsets, total) = fit(&buffers, 4).unwrap();
        assert_eq!(offsets, [128, 0, 192, 0, 192]);
        assert_eq!(total, 256);
    }

    /// Among the values the workspace comes first by size, which drives values apart that share memory without it.
    #[test]
    fn a_workspace_never_adds_more_than_itself() {
        let buffers = buffers([(1, 3, 128), (3, 4, 128), (4, 4, 128), (0, 2, 128), (4, 4, 192)]);
        let without = fit(&buffers[..4], 4).unwrap().1;
        let (_, total) = fit(&buffers, 4).unwrap();
        assert_eq!((without, total), (256, 448));
    }
}
