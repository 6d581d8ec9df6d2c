//! The graph of syncbn-compile: operators, types, verifier, text form, builder and reference evaluation.
