//! What streams and graphs hold.

use std::sync::Arc;

/// A piece of work.
#[derive(Debug, Clone)]
pub enum Work {
    /// A kernel, and the beginnings of the allocations that its parameters point into.
    Kernel {
        /// Its name.
        name: Arc<str>,
        /// Beginnings of allocations.
        memory: Arc<[u64]>,
    },
    /// A copy to the device.
    Upload {
        /// Device memory.
        to: u64,
        /// Host memory.
        from: u64,
        /// Length.
        bytes: u64,
    },
    /// A copy from the device.
    Download {
        /// Host memory.
        to: u64,
        /// Device memory.
        from: u64,
        /// Length.
        bytes: u64,
    },
    /// A fill of device memory.
    Fill {
        /// Device memory.
        to: u64,
        /// Every byte.
        value: u8,
        /// Length.
        bytes: u64,
    },
    /// A wait for a point of another stream.
    Wait {
        /// The other stream.
        stream: u64,
        /// How much of its work must be done.
        position: u64,
    },
    /// An all-reduce.
    Reduce(Reduce),
}

/// An all-reduce.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reduce {
    /// The communicator.
    pub communicator: u64,
    /// Elements.
    pub count: u64,
    /// `ncclDataType_t`
    pub data_type: i32,
    /// What is summed.
    pub send: u64,
    /// Where the sum goes.
    pub receive: u64,
    /// Length of both.
    pub bytes: u64,
}

/// Work in a stream.
#[derive(Debug, Clone)]
pub struct Queued {
    /// The work.
    pub work: Work,
    /// Hash of an upload's source, or the number of an all-reduce of its communicator.
    pub ticket: u64,
}

impl Work {
    /// Device memory that it uses: beginning and length.
    pub fn device_memory(&self) -> Vec<(u64, u64)> {
        match self {
            Work::Kernel { memory, .. } => memory.iter().map(|&start| (start, 0)).collect(),
            Work::Upload { to, bytes, .. } | Work::Fill { to, bytes, .. } => vec![(*to, *bytes)],
            Work::Download { from, bytes, .. } => vec![(*from, *bytes)],
            Work::Reduce(reduce) => vec![(reduce.send, reduce.bytes), (reduce.receive, reduce.bytes)],
            Work::Wait { .. } => Vec::new(),
        }
    }

    /// Host memory that it uses.
    pub fn host_memory(&self) -> Option<(u64, u64)> {
        match self {
            Work::Upload { from, bytes, .. } => Some((*from, *bytes)),
            Work::Download { to, bytes, .. } => Some((*to, *bytes)),
            _ => None,
        }
    }

    /// What it is, for messages.
    pub fn describe(&self) -> String {
        match self {
            Work::Kernel { name, .. } => format!("kernel {name}"),
            Work::Upload { bytes, .. } => format!("a copy of {bytes} bytes to the device"),
            Work::Download { bytes, .. } => format!("a copy of {bytes} bytes from the device"),
            Work::Fill { bytes, .. } => format!("a fill of {bytes} bytes"),
            Work::Wait { .. } => "a wait".to_string(),
            Work::Reduce(reduce) => format!("an all-reduce of {} elements", reduce.count),
        }
    }
}

/// A hash of host memory; of large memory it sees a part.
///
/// # Safety
/// The memory can be read.
pub unsafe fn hash(address: u64, bytes: u64) -> u64 {
    const WHOLE: u64 = 1 << 20;
    // SAFETY: the caller says so.
    let memory = unsafe { std::slice::from_raw_parts(address as *const u8, bytes as usize) };
    let stride = if bytes > WHOLE { 61 } else { 1 };
    memory
        .iter()
        .step_by(stride)
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
        })
}
