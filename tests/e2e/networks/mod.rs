//! Other networks than those of the corpus: executables against the reference evaluation of one rank that
//! holds the whole batch.

mod check;
mod convolutions;
mod heads;
mod norms;
mod optimizers;
mod pools;
mod residual;
