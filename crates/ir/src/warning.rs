//! Warnings, in the one shape that all stages share.

use std::fmt;

/// Something that compiles and is likely not what the user wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// The node, tensor or flag, such as `node "bn1" (BatchNormalization)`.
    pub place: Option<String>,
    /// What is odd, and why.
    pub message: String,
    /// What to do.
    pub help: Option<String>,
}

impl Warning {
    /// A warning without a place.
    pub fn new(message: impl Into<String>) -> Warning {
        Warning {
            place: None,
            message: message.into(),
            help: None,
        }
    }

    /// Names the place.
    pub fn at(mut self, place: impl Into<String>) -> Warning {
        self.place = Some(place.into());
        self
    }

    /// Says what to do.
    pub fn help(mut self, help: impl Into<String>) -> Warning {
        self.help = Some(help.into());
        self
    }
}

/// Place and message.
impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            write!(f, "{place}: ")?;
        }
        f.write_str(&self.message)
    }
}
