//! Graph outputs.

use super::Value;

/// What a graph output is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum OutputKind {
    /// An ONNX output; `name` is its name.
    Output,
    /// The scalar loss.
    Loss,
    /// The gradient of the parameter (or, for tests, input) `name`.
    Gradient,
    /// The next value of the running statistic `name`.
    Statistic,
}

impl OutputKind {
    /// The text form.
    pub fn name(self) -> &'static str {
        match self {
            OutputKind::Output => "output",
            OutputKind::Loss => "loss",
            OutputKind::Gradient => "gradient",
            OutputKind::Statistic => "statistic",
        }
    }
}

/// A graph output.
#[derive(Debug, Clone, PartialEq)]
pub struct Output {
    /// What it is.
    pub kind: OutputKind,
    /// Its name: of an ONNX output, a parameter or a statistic.
    pub name: String,
    /// The value.
    pub value: Value,
}
