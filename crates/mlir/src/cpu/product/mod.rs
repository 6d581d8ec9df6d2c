//! Matrix products, and the tile of registers that all products are made of.

pub mod blocked;
mod dots;
pub mod general;
pub mod microkernel;
mod rows;
