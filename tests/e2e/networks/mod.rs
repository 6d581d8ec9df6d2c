//! Other networks than those of the corpus: executables against the reference evaluation of one rank that
//! holds the whole batch.

mod activations;
mod check;
mod convolutions;
mod heads;
mod layouts;
mod norms;
mod optimizers;
mod pools;
mod resampling;
mod residual;
mod slices;
mod tensor_cores;
mod vectors;
