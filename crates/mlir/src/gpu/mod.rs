pub(crate) mod conv;
pub(crate) mod matmul;
