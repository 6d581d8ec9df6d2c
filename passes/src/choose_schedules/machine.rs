//! The processor that schedules are chosen for, as far as the choice depends on it.

use syncbn_ir::DType;

/// What costs are measured in. Figures are of one core.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Machine {
    /// Bytes of a vector.
    pub vector_bytes: usize,
    /// Vector registers.
    pub registers: usize,
    /// Fused multiply-adds of vectors that begin in a cycle.
    pub products_per_cycle: f64,
    /// Vectors that are loaded in a cycle.
    pub loads_per_cycle: f64,
    /// Cycles until the result of a multiply-add is there.
    pub latency: f64,
    /// Bytes of the first cache.
    pub l1: usize,
    /// Bytes of the second cache.
    pub l2: usize,
    /// Bytes of the third cache.
    pub l3: usize,
    /// Bytes a cycle from the third cache.
    pub l3_bytes_per_cycle: f64,
    /// Bytes a cycle from memory.
    pub memory_bytes_per_cycle: f64,
    /// Cycles a nanosecond.
    pub ghz: f64,
}

impl Machine {
    /// A processor with vectors of this size: 64 bytes for AVX-512, 32 for AVX2, else 16. Caches and speeds are those of
    /// common ones, so that an executable does not depend on the machine that compiles it.
    pub fn with_vectors(vector_bytes: usize) -> Machine {
        let wide = vector_bytes >= 64;
        Machine {
            vector_bytes,
            registers: if wide { 32 } else { 16 },
            products_per_cycle: 2.0,
            loads_per_cycle: 2.0,
            latency: 4.0,
            l1: if wide { 48 << 10 } else { 32 << 10 },
            l2: if wide { 1 << 20 } else { 512 << 10 },
            l3: 16 << 20,
            l3_bytes_per_cycle: 16.0,
            memory_bytes_per_cycle: 4.0,
            ghz: 3.0,
        }
    }

    /// Elements of a vector.
    pub fn lanes(&self, dtype: DType) -> usize {
        (self.vector_bytes / dtype.bytes() as usize).max(1)
    }

    /// Accumulators that fit beside what they are made of.
    pub fn accumulators(&self) -> usize {
        self.registers - 4
    }
}

impl std::str::FromStr for Machine {
    type Err = String;

    /// By the level of the instruction set.
    fn from_str(text: &str) -> Result<Machine, String> {
        match text {
            "x86-64-v4" => Ok(Machine::with_vectors(64)),
            "x86-64-v3" => Ok(Machine::with_vectors(32)),
            "x86-64" => Ok(Machine::with_vectors(16)),
            _ => Err(format!("\"{text}\" is none of x86-64, x86-64-v3, x86-64-v4")),
        }
    }
}
