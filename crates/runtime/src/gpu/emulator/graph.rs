//! Captured work of an emulated device: what was enqueued, with copies of all arguments, to be done again and again.

use std::{ffi::c_void, rc::Rc};

use syncbn_abi::GpuKernel;

use super::{Communicator, Emulator, timeline::Members};
use crate::{
    error::{Error, Result},
    gpu::{
        device::Replay,
        stream::{AllReduce, Stream},
    },
};

/// A piece of work.
#[derive(Clone)]
pub(super) enum Work {
    /// A kernel.
    Launch {
        kernel: i64,
        grid: [i64; 3],
        /// The parameters' values, each at the start of its word.
        values: Vec<u64>,
    },
    /// Waits for another stream.
    Wait { signalling: usize },
    AllReduce {
        communicator: Rc<Communicator>,
        call: AllReduce,
    },
    /// A copy from host memory that stays as long as the device.
    Upload {
        to: *mut u8,
        from: *const u8,
        bytes: usize,
    },
    /// A copy to such host memory.
    Download {
        from: *const u8,
        to: *mut u8,
        bytes: usize,
    },
}

/// A capture under way.
pub(super) struct Recording {
    members: Members,
    work: Vec<(usize, Work)>,
}

impl Recording {
    /// Begins on a stream.
    pub fn new(origin: usize) -> Self {
        Recording {
            members: Members::new(origin),
            work: Vec::new(),
        }
    }

    /// Takes work of a stream; an error if the stream does not take part.
    pub fn add(&mut self, stream: usize, work: Work) -> Result<()> {
        match &work {
            Work::Wait { signalling } => self.members.wait(stream, *signalling)?,
            _ => self.members.work(stream)?,
        }
        self.work.push((stream, work));
        Ok(())
    }

    /// Ends; an error if a stream that takes part was not waited for.
    pub fn end(self) -> Result<Vec<(usize, Work)>> {
        self.members.end()?;
        Ok(self.work)
    }
}

/// The values of a kernel's parameters, each in a word of its own, and numbers that are passed by value in words that
/// follow each other.
///
/// # Safety
/// `parameters` points to the values of the kernel's parameters, as its description says.
pub(super) unsafe fn values(kernel: &GpuKernel, parameters: *const *const c_void) -> Vec<u64> {
    // SAFETY: an update has one parameter, a pointer.
    let word = |index: usize| unsafe { (*parameters.add(index)).cast::<u64>().read() };
    let Some(described) = &kernel.parameters else {
        return vec![word(0)];
    };
    let pointers = described.len();
    // SAFETY: the samples of this rank follow the pointers.
    let n = unsafe { (*parameters.add(pointers)).cast::<u32>().read() };
    let mut values: Vec<u64> = (0..pointers).map(word).collect();
    values.extend([u64::from(n), word(pointers + 1)]);
    let number = |index: usize| {
        // SAFETY: after `n` and `total` comes the address of so many numbers.
        unsafe { (*parameters.add(pointers + 2)).cast::<u32>().add(index).read() }
    };
    let numbers: Vec<u32> = (0..kernel.numbers as usize).map(number).collect();
    let pair = |pair: &[u32]| u64::from(pair[0]) | u64::from(*pair.get(1).unwrap_or(&0)) << 32;
    values.extend(numbers.chunks(2).map(pair));
    values
}

/// A captured graph.
pub(super) struct EmulatedGraph {
    pub emulator: Rc<Emulator>,
    /// The stream that it was captured from; failures are its own.
    pub origin: Rc<Stream>,
    pub work: Vec<(usize, Work)>,
}

impl Replay for EmulatedGraph {
    fn replay(&self) -> Result<()> {
        if self.emulator.is_recording() {
            return Err(Error::internal("a graph is replayed while another is captured"));
        }
        for (stream, work) in &self.work {
            if self.origin.has_failed() {
                break;
            }
            if let Err(error) = self.emulator.perform(*stream, work) {
                self.origin.fail(error);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use syncbn_abi::GpuParameter;

    use super::*;

    #[test]
    fn numbers_that_are_passed_by_value_are_copied() {
        let parameter = GpuParameter {
            bytes: 4,
            bytes_per_sample: 0,
            written: false,
        };
        let kernel = GpuKernel {
            name: "k".into(),
            block: 1,
            shared: 0,
            cooperative: false,
            parameters: Some(vec![parameter; 2]),
            numbers: 3,
            nodes: Vec::new(),
        };
        let (pointers, n, total) = ([8_u64, 16], 5_i32, 7_i64);
        let mut numbers = [1_i32, -2, 3];
        let parameters: [*const c_void; 5] = [
            (&raw const pointers[0]).cast(),
            (&raw const pointers[1]).cast(),
            (&raw const n).cast(),
            (&raw const total).cast(),
            (&raw const numbers).cast(),
        ];
        // SAFETY: two pointers, the samples of the rank and of all, and three numbers, as the kernel says.
        let values = unsafe { values(&kernel, parameters.as_ptr()) };
        numbers.fill(0);
        assert_eq!(values[..4], [8, 16, 5, 7]);
        let words: Vec<u8> = values[4..].iter().flat_map(|word| word.to_le_bytes()).collect();
        let copied: Vec<i32> = words
            .as_chunks()
            .0
            .iter()
            .map(|&n| i32::from_le_bytes(n))
            .collect();
        assert_eq!(copied[..3], [1, -2, 3]);
        assert_eq!(numbers, [0; 3]);
    }
}
