//! The kernels of an operator, as values: the target decides which there are, and builds them one by one.

use super::kernel::Kernel;
use crate::emit::{Emitter, Footprint, Key, Numbers};
use crate::error::LowerError;

/// What a stage emits, given a kernel's tensors.
type Emit<'a> = Box<dyn for<'c> Fn(&Kernel<'c>, &Emitter<'c>) -> Result<(), String> + 'a>;

/// A stage of an operator. Most operators have one. Where each stage is a kernel of its own an operator may need several,
/// because nothing but the end of a kernel orders the writes of one block before the reads of another; a stage whose
/// threads share a sum is two kernels ([`Emitter::sum_in_threads`]).
pub struct Stage<'a> {
    emit: Emit<'a>,
    /// What is known of its kernel before it is emitted.
    pub plan: Option<Plan>,
}

/// What is known of a kernel before it is emitted: kernels of one signature whose keys are equal have the same code.
#[derive(Debug, Clone)]
pub struct Plan {
    /// All that its code depends on besides the numbers.
    pub key: Key,
    /// The open numbers of this launch, of which there is at least one.
    pub numbers: Numbers,
    /// What the launch needs.
    pub footprint: Footprint,
}

impl<'a> Stage<'a> {
    /// A stage of which nothing is known before it is emitted.
    pub fn new(emit: impl for<'c> Fn(&Kernel<'c>, &Emitter<'c>) + 'a) -> Stage<'a> {
        Stage::fallible(move |k, e| {
            emit(k, e);
            Ok(())
        })
    }

    /// A stage that may find that the passes broke a promise.
    pub fn fallible(
        emit: impl for<'c> Fn(&Kernel<'c>, &Emitter<'c>) -> Result<(), String> + 'a,
    ) -> Stage<'a> {
        Stage {
            emit: Box::new(emit),
            plan: None,
        }
    }

    /// A planned stage.
    pub fn planned(plan: Plan, emit: impl for<'c> Fn(&Kernel<'c>, &Emitter<'c>) + 'a) -> Stage<'a> {
        Stage {
            plan: Some(plan),
            ..Stage::new(emit)
        }
    }

    /// Emits its code.
    pub fn emit<'c>(&self, k: &Kernel<'c>, e: &Emitter<'c>) -> Result<(), LowerError> {
        (self.emit)(k, e).map_err(|message| LowerError::Internal { message })
    }
}
