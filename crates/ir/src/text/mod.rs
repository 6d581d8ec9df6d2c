//! The text form: [`print()`] writes a graph, [`parse`] reads it back. The grammar stands in `docs/ir.md`.
//!
//! Every printed graph that is acyclic parses, and parse, print, parse is a fixed point. What the text leaves
//! out are the values of large parameters (a hash stands for them) and the ids of nodes.

mod lex;
mod parse;
mod print;

pub use parse::{ParseError, parse, parse_schedule};
pub use print::print;

/// Literals of parameters and statistics with more elements print as a hash.
const MAX_PRINTED: usize = 8;

/// Constants of more elements never print as `splat`, so that a short text cannot ask for much memory.
const MAX_SPLAT: usize = 1 << 24;

/// FNV-1a, 64 bit, of the little-endian bytes of a literal.
pub fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &b| {
        (hash ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
