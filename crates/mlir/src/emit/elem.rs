//! Element types of values and of memory.

/// Element type of a [`super::Val`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Elem {
    /// A comparison's result.
    I1,
    /// Codes of max pooling.
    I8,
    /// Bits of an f32.
    I32,
    /// Indices, labels and bits of an f64.
    I64,
    /// 32-bit float.
    F32,
    /// 64-bit float.
    F64,
    /// The upper half of an f32, in memory only: see [`Elem::register`].
    BF16,
    /// An address: of host memory in host code, of global memory in a GPU's kernel.
    Ptr,
    /// An address in a block's shared memory.
    SharedPtr,
    /// The address of a kernel's parameter that is passed by value.
    ParameterPtr,
    /// A communicator, `!nccl.comm`, in host code.
    Communicator,
}

impl Elem {
    /// Size in bytes in memory.
    pub fn bytes(self) -> i64 {
        match self {
            Elem::I1 | Elem::I8 => 1,
            Elem::BF16 => 2,
            Elem::I32 | Elem::F32 | Elem::SharedPtr => 4,
            Elem::I64 | Elem::F64 | Elem::Ptr | Elem::ParameterPtr | Elem::Communicator => 8,
        }
    }

    /// What a loaded value is, and a value to be stored: f32 for bf16, else itself.
    pub fn register(self) -> Elem {
        match self {
            Elem::BF16 => Elem::F32,
            other => other,
        }
    }

    pub(super) fn is_float(self) -> bool {
        matches!(self, Elem::F32 | Elem::F64 | Elem::BF16)
    }
}
