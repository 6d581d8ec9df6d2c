//! What a process knows of the others of its run.

use std::{collections::VecDeque, time::Instant};

use super::frame::Death;
use crate::error::{Error, Kind};

/// What is known of the others.
pub struct State {
    /// By rank; on ranks above 0 only rank 0's means something.
    pub peers: Vec<Peer>,
    /// The last step that rank 0 has finished.
    pub verdicts: u64,
    /// The run's last step, once a signal asked for the end and rank 0 chose it.
    pub stop_after: Option<u64>,
    /// A signal asked some rank for the end.
    pub interrupted: bool,
    /// Why the run fails.
    pub doom: Option<Doom>,
    /// The doom was passed on and reported.
    pub told: bool,
    /// The main thread has come to its end.
    pub concluding: bool,
}

/// A process that this one is connected with.
pub struct Peer {
    /// Data that nobody has asked for yet.
    pub inbox: VecDeque<Vec<u8>>,
    /// When it last gave a sign of life.
    pub heard: Instant,
    /// The last step that it finished.
    pub step: u64,
    /// Its last word.
    pub ended: Option<Ended>,
}

/// An end in order.
pub struct Ended {
    /// When it was heard of.
    pub at: Instant,
    /// The exit code.
    pub code: i32,
    /// The error's message; empty without one.
    pub message: String,
}

/// Why this process must end although its main thread has not.
#[derive(Debug, Clone)]
pub enum Doom {
    /// A rank died.
    Died(Death),
    /// Rank 0 ended with an error of its own, which it reports.
    Ended {
        /// Rank 0's exit code.
        code: i32,
        /// Rank 0's message.
        message: String,
    },
}

impl Doom {
    /// The exit code of this process.
    pub fn exit_code(&self) -> i32 {
        match self {
            Doom::Died(_) => Kind::RankDied.exit_code(),
            Doom::Ended { code, .. } => *code,
        }
    }

    /// The error of whoever waits for the others.
    pub fn error(&self) -> Error {
        match self {
            Doom::Died(Death { rank, step, cause }) => {
                let text = format!("rank {rank} died (last step {step})");
                Error::new(Kind::RankDied, text).note(cause)
            }
            Doom::Ended { message, .. } => {
                Error::new(Kind::RankDied, format!("rank 0 ended with an error: {message}"))
            }
        }
    }
}
