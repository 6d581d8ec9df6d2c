//! Matrix product on the CPU, a file a schedule.

pub mod general;
