//! Places in memory, as `plan-memory` gives them.

/// A lifetime class of memory; see `syncbn_abi` for who owns each arena.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Arena {
    /// Parameters.
    Weights,
    /// Gradients of trained parameters.
    Gradients,
    /// Running statistics.
    Statistics,
    /// What inference derives from weights alone.
    Prepared,
    /// Values of one step.
    Step,
    /// Constants, in the executable's read-only data.
    Constants,
    /// The caller's input buffers; the offset is the input's index.
    Inputs,
    /// The caller's output buffers; the offset is the output's index.
    Outputs,
}

impl Arena {
    /// All arenas, in declaration order.
    pub const ALL: [Arena; 8] = [
        Arena::Weights,
        Arena::Gradients,
        Arena::Statistics,
        Arena::Prepared,
        Arena::Step,
        Arena::Constants,
        Arena::Inputs,
        Arena::Outputs,
    ];

    /// The text form.
    pub fn name(self) -> &'static str {
        match self {
            Arena::Weights => "weights",
            Arena::Gradients => "gradients",
            Arena::Statistics => "statistics",
            Arena::Prepared => "prepared",
            Arena::Step => "step",
            Arena::Constants => "constants",
            Arena::Inputs => "inputs",
            Arena::Outputs => "outputs",
        }
    }
}

/// Where a value lives: given by `plan-memory`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Location {
    /// The arena.
    pub arena: Arena,
    /// Byte offset (an index for inputs and outputs).
    pub offset: u64,
}
