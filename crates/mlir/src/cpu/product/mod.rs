//! Matrix products, and the tile of registers that all products are made of.

pub mod general;
pub mod microkernel;
