//! What a name of the file stands for during an import.

use std::rc::Rc;

use syncbn_ir::Value;

use crate::integers::Integers;

/// What a name stands for.
#[derive(Debug, Clone)]
pub(crate) enum Binding {
    /// A value of the graph.
    Value(Value),
    /// An integer tensor that is known during import; not in the graph.
    Integers(Rc<Integers>),
    /// A floating-point initializer, or an input that `--init` fills. It enters the graph where it is used,
    /// because the slot decides what it becomes.
    Weight(Weight),
    /// Several, of which `SequenceAt` picks one.
    Sequence(Rc<Vec<Binding>>),
    /// The node that should have computed it had an error.
    Failed,
}

impl From<Value> for Binding {
    fn from(value: Value) -> Binding {
        Binding::Value(value)
    }
}

impl From<Integers> for Binding {
    fn from(integers: Integers) -> Binding {
        Binding::Integers(Rc::new(integers))
    }
}

/// An initializer, or an Identity copy of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Weight {
    /// Index of the initializer.
    pub index: usize,
    /// Name of the Identity output that copies it.
    pub copy: Option<String>,
}

/// Where a weight is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Slot {
    /// Anywhere but in a BatchNorm's slots.
    Data,
    /// Scale of a BatchNorm.
    Scale,
    /// Bias of a BatchNorm.
    Bias,
    /// Running mean of a BatchNorm.
    Mean,
    /// Running variance of a BatchNorm.
    Variance,
}

impl Slot {
    /// The operand's name in messages.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Slot::Data => "data",
            Slot::Scale => "scale",
            Slot::Bias => "bias",
            Slot::Mean => "running_mean",
            Slot::Variance => "running_var",
        }
    }
}
