//! The runtime that is linked into every compiled model.
