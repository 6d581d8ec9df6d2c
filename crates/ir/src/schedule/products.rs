//! How a GPU multiplies matrices.

use crate::types::DType;

/// Bytes of one copy from global to shared memory, and of the widest access of a thread.
pub const COPY_BYTES: u64 = 16;

/// How matrices are multiplied, in convolutions and linear layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Products {
    /// In f32, without tensor cores.
    #[default]
    Exact,
    /// On tensor cores, with operands rounded to tf32 and sums in f32.
    Tf32,
    /// On tensor cores, with each operand as the sum of two tf32 numbers: three products, close to f32.
    ThreeTf32,
    /// On tensor cores in bf16, with sums in f32.
    Bf16,
}

impl Products {
    /// Element type of the operands.
    pub fn operand(self) -> DType {
        match self {
            Products::Bf16 => DType::BF16,
            Products::Exact | Products::Tf32 | Products::ThreeTf32 => DType::F32,
        }
    }

    /// The precision that a description of the program states.
    pub fn name(self) -> &'static str {
        match self {
            Products::Tf32 => "tf32",
            Products::Bf16 => "bf16",
            Products::Exact | Products::ThreeTf32 => "f32",
        }
    }

    /// What channels must be a multiple of to be multiplied so.
    pub fn channels_at_once(self) -> usize {
        match self {
            Products::Exact => 1,
            Products::Tf32 | Products::ThreeTf32 | Products::Bf16 => channels_of_copy(self.operand()),
        }
    }
}

/// Neighbouring channels of one copy.
pub fn channels_of_copy(dtype: DType) -> usize {
    (COPY_BYTES / dtype.bytes()).max(1) as usize
}
