//! CPU ranks: threads of one process that share weights ([`crew`], [`rank`]), the sums over them ([`collectives`],
//! [`all_reduce`], [`barrier`]), and the execution of a program's CPU part on them.

pub mod all_reduce;
pub mod barrier;
pub mod collectives;
pub mod cores;
pub mod crew;
pub mod execution;
pub mod part;
pub mod rank;
pub mod threads;
