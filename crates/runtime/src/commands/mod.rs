//! What an executable does: one file or folder a subcommand, and [`run`], which chooses.

pub mod bench;
pub mod infer;
pub mod info;
pub mod run;
pub mod train;
