//! How much a kernel has to do, and the blocks that do it.

/// Threads of a block of the kernels that need no other number.
pub const THREADS: u32 = 256;

/// `a / b`, rounded up.
pub fn ceil(a: i64, b: i64) -> i64 {
    (a + b - 1) / b
}

/// How much there is for a kernel to do: the larger one of `fixed` and `per_sample * n`, in threads or, where the
/// threads of a block work together, in rows of a matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Work {
    /// What does not depend on the batch.
    pub fixed: i64,
    /// For each sample.
    pub per_sample: i64,
}

/// The blocks of a kernel's grid. Along x there are `columns * ceil(work / takes)`, along z `planes`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Blocks {
    /// Threads of a block.
    pub threads: u32,
    /// How much of the work a block takes.
    pub takes: i64,
    /// Blocks that take the same part of the work.
    pub columns: i64,
    /// Blocks along z.
    pub planes: i64,
    /// Bytes of dynamic shared memory of a block.
    pub shared: u32,
    /// Whether the threads of a block meet.
    pub cooperative: bool,
    /// How many blocks a multiprocessor should hold: bounds the registers of a thread.
    pub resident: Option<u32>,
}

impl Blocks {
    /// Blocks of independent threads, each of which takes one piece of the work.
    pub fn of_threads(threads: u32) -> Blocks {
        Blocks {
            threads,
            takes: i64::from(threads),
            columns: 1,
            planes: 1,
            shared: 0,
            cooperative: false,
            resident: None,
        }
    }
}
