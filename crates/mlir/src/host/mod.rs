//! What all targets need of host code: functions, the frame of a step, and the check before lowering.

mod call;
mod check;
mod data;
mod frame;
mod function;

pub use call::{Call, CallKey, Sources};
pub use check::check;
pub use frame::{Frame, Places, Step, places};
pub use function::{Functions, Parameter};
