//! The runtime that is linked into every compiled model: ranks, collectives, memory, data, checkpoints, and
//! the command line of the executable. What crosses to generated code stands in `syncbn-abi`.
//!
//! # How a step runs
//!
//! Ranks are threads ([`cpu::crew`]) that share weights and have private statistics, gradients and step arenas
//! ([`cpu::rank`]); a rank may have more threads ([`cpu::threads`]), which divide the work of its kernels. The caller is
//! rank 0. One phase at a time runs on all ranks: a training step, in which generated code calls back for collectives
//! ([`cpu::collectives`], [`cpu::all_reduce`], [`cpu::barrier`]), then the update, each thread its own slice. Between
//! phases nobody works, so the loop ([`commands::train`]) looks at losses, logs, validates and saves without locks that
//! anyone waits for.
//!
//! A GPU rank is a process with memory of its own ([`gpu`]). The loop is the same: it sees an
//! [`execution::Execution`], which is all ranks of the CPU or one GPU rank, and [`place`] chooses which.
//!
//! # Invariants
//!
//! - With one rank no collective is executed, and inference executes none; both are checked in every run.
//! - Every sum over ranks is taken in rank order, so two runs of one command give the same bits.
//! - A rank that fails or panics poisons the collectives: the others return with an error, none waits. A GPU rank
//!   that dies ends the others within 10 s ([`gpu::control`]).
//! - Weights that are not finite are never saved, and a file is replaced whole or not at all.
//! - `unsafe` stands only where generated code is called or calls ([`cpu::rank`], [`cpu::collectives`], `entry`), where
//!   ranks share memory ([`arena`], [`cpu::all_reduce`]), at the futex ([`cpu::barrier`]), and in [`gpu`]: where kernels are
//!   emulated, where the CUDA driver and NCCL are called, and where processes are signalled and ended.
//! - No dependency brings a C library: an executable needs glibc alone.
//!
//! # Building the archive
//!
//! The archive that executables are linked with is this crate as a static library with the feature `entry`,
//! which adds the C `main`:
//!
//! ```text
//! CARGO_PROFILE_RELEASE_LTO=fat CARGO_PROFILE_RELEASE_CODEGEN_UNITS=1 \
//! cargo rustc -p syncbn-runtime --lib --release --locked --features entry --crate-type staticlib --target-dir DIR
//! strip --strip-debug DIR/release/libsyncbn_runtime.a
//! ```
//!
//! With `lto = "fat"` the stripped archive has 6 MiB (1.6 MiB under gzip), without it 23 MiB, and it builds
//! no slower. Panics must stay `unwind` (the default): they are caught and become errors. Nothing may be
//! compiled for more than the baseline x86-64, as the executable checks the processor itself; what has a form for
//! wider vectors asks the processor before it takes it ([`cpu::all_reduce`]).
//!
//! Tests are never built with `entry`: its `main` would meet theirs.
//!
//! # Linking an executable
//!
//! ```text
//! cc -static-libgcc -o model.bin model.o DIR/release/libsyncbn_runtime.a -Wl,--gc-sections -lm
//! ```
//!
//! `model.o` defines the symbols of [`syncbn_abi::symbols`]. Model and archive agree on their interface if the
//! link finds [`syncbn_abi::ABI_SYMBOL`]: the archive defines it, and `model.o` must refer to it. A model
//! without training (or without inference) leaves those functions undefined: the archive refers to them
//! weakly. `-static-libgcc` keeps libgcc_s, which catches panics, out of the needed libraries. On glibc before
//! 2.34 add `-lpthread -ldl`. Executables may be position independent or not.

pub mod arena;
pub mod cli;
pub mod commands;
pub mod cpu;
#[cfg(feature = "entry")]
pub mod entry;
pub mod error;
pub mod execution;
pub mod files;
mod functions;
pub mod gpu;
pub mod initial;
pub mod launcher;
pub mod learning_rate;
pub mod optimizer;
pub mod order;
pub mod panics;
pub mod place;
pub mod processor;
pub mod program;
pub mod report;
pub mod sampler;
pub mod sizes;
pub mod trace;
