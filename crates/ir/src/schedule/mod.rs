//! Schedules: how a node is computed. A schedule is data on a node and has no part in what the node means: `General` and
//! every other schedule that fits an operator compute the same, up to rounding.
//!
//! `choose-schedules` picks them by a model of a machine, a processor or a GPU, `assign-layouts` and `plan-memory` give them the layouts and
//! the workspace that they need, and the lowering reads them and decides nothing. `lanes` are the elements of a vector;
//! a register tile is `pixels` by `vectors` accumulators, which stay in registers while the sum is taken.

pub mod axis;
pub mod borders;
mod convolution;
mod copies;
mod fits;
mod implicit_gemm;
mod products;
mod sums;
mod workspace;

pub use convolution::{Convolution, Direction, product_sizes};
pub use copies::{BETWEEN_STRIPES, Copies, FEW_CHANNELS, MOST_COPIED, MOST_PHASES, stripe};
pub use implicit_gemm::{Gemm, MOMENTS_OF_TILE, MOST_PARTIAL_BYTES};
pub use products::{COPY_BYTES, Products};
pub use sums::{ThreadSums, partials_begin};
pub use workspace::{gap, gpu_workspace, packed_channels};

use crate::attributes::{Attribute, AttributeValue};
use crate::ops::take_attribute;
use crate::types::Layout;

/// Defines the blocking of a schedule: numbers and truth values with names, and their text form.
macro_rules! blocking {
    ($(#[$meta:meta])* $name:ident { $($(#[$field_meta:meta])* $field:ident: $t:ty,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub struct $name { $($(#[$field_meta])* pub $field: $t,)* }

        impl $name {
            fn fields(&self) -> Vec<(&'static str, Attribute)> {
                vec![$((stringify!($field), self.$field.to_attribute()),)*]
            }

            fn from_fields(given: &mut Vec<(String, Attribute)>) -> Result<$name, String> {
                Ok($name { $($field: take_attribute(given, stringify!($field))?,)* })
            }
        }
    };
}

blocking! {
    /// Blocking of [`Schedule::Direct`].
    Direct {
        /// Elements of a vector, along output channels.
        lanes: usize,
        /// Positions of a register tile; of backward weights its input channels.
        pixels: usize,
        /// Vectors of output channels of a register tile.
        vectors: usize,
        /// Rows of output positions that are computed before the next channels are: of an image, or all those of several.
        rows: usize,
    }
}

/// Blocking of [`Schedule::Pointwise`]: that of a direct convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Pointwise(pub Direct);

impl Pointwise {
    fn fields(&self) -> Vec<(&'static str, Attribute)> {
        self.0.fields()
    }

    fn from_fields(given: &mut Vec<(String, Attribute)>) -> Result<Pointwise, String> {
        Direct::from_fields(given).map(Pointwise)
    }
}

blocking! {
    /// Blocking of [`Schedule::Depthwise`].
    Depthwise {
        /// Elements of a vector, along channels.
        lanes: usize,
        /// Positions of a register tile.
        pixels: usize,
    }
}

blocking! {
    /// Blocking of [`Schedule::Winograd`] and [`Schedule::Polyphase`].
    Winograd {
        /// Elements of a vector, along output channels.
        lanes: usize,
        /// Tiles of a register tile of the products; of backward weights input channels.
        pixels: usize,
        /// Vectors of output channels of a register tile.
        vectors: usize,
        /// Tiles of 4 by 4 results that are transformed at a time.
        tiles: usize,
        /// Whether the weights of `vectors` vectors of output channels are transformed at a time and used at once, so that
        /// the transforms never leave the cache.
        chunked: bool,
        /// Whether weights come transformed ([`crate::Layout::is_transformed`]), as they do where they are there before the
        /// step.
        prepared: bool,
    }
}

impl Winograd {
    /// Output channels that are computed at a time.
    pub fn chunk(&self) -> usize {
        self.vectors * self.lanes
    }
}

blocking! {
    /// Blocking of [`Schedule::Product`].
    Product {
        /// Elements of a vector, along columns of the result.
        lanes: usize,
        /// Rows of a register tile.
        pixels: usize,
        /// Vectors of columns of a register tile.
        vectors: usize,
        /// Terms that are summed before the next columns are.
        depth: usize,
    }
}

blocking! {
    /// Blocking of [`Schedule::ImplicitGemm`]: how blocks of threads and their warps divide the product.
    ImplicitGemm {
        /// Rows of a block.
        rows: usize,
        /// Columns of a block.
        columns: usize,
        /// Reduced elements of a step.
        depth: usize,
        /// Rows of a warp.
        warp_rows: usize,
        /// Columns of a warp.
        warp_columns: usize,
        /// Steps in shared memory at a time.
        stages: usize,
        /// Blocks that a multiprocessor holds: leaves enough registers for a thread not to spill.
        resident: usize,
        /// Parts that the reduced index is split in, whose results a second kernel adds where there are several.
        splits: usize,
    }
}

/// How a node is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Schedule {
    /// The operator's general form, which is right for every attribute and layout.
    General,
    /// Convolution in any direction: register tiles over a copy of the input with its padding. Few input channels are
    /// treated alike.
    Direct(Direct),
    /// Convolution with a kernel of one element and without padding, as a matrix product.
    Pointwise(Pointwise),
    /// Convolution with one filter a channel: lanes along channels.
    Depthwise(Depthwise),
    /// Winograd's F(4x4, 3x3) of a 3x3 convolution of stride 1.
    Winograd(Winograd),
    /// A 3x3 convolution of stride 2 as F(4, 2) and F(4, 1) of the even and odd rows and columns.
    Polyphase(Winograd),
    /// Matrix product in blocks.
    Product(Product),
    /// On a GPU: convolution in any direction, or matrix product, as an implicit matrix product on tensor cores.
    ImplicitGemm(ImplicitGemm),
}

macro_rules! schedules {
    ($($name:ident($blocking:ident) = $text:literal),* $(,)?) => {
        impl Schedule {
            /// Names of all schedules in the text form.
            pub const NAMES: &'static [&'static str] = &["general", $($text),*];

            /// Name in the text form.
            pub fn name(&self) -> &'static str {
                match self {
                    Schedule::General => "general",
                    $(Schedule::$name(_) => $text,)*
                }
            }

            /// The blocking in the text form, in order.
            pub fn fields(&self) -> Vec<(&'static str, Attribute)> {
                match self {
                    Schedule::General => Vec::new(),
                    $(Schedule::$name(blocking) => blocking.fields(),)*
                }
            }

            /// The schedule with this name and blocking.
            pub fn from_fields(name: &str, mut given: Vec<(String, Attribute)>) -> Result<Schedule, String> {
                let schedule = match name {
                    "general" => Schedule::General,
                    $($text => Schedule::$name($blocking::from_fields(&mut given)?),)*
                    _ => return Err(format!("unknown schedule {name}; there are {}", Schedule::NAMES.join(", "))),
                };
                match given.first() {
                    Some((extra, _)) => Err(format!("schedule {name} has no field {extra}")),
                    None => Ok(schedule),
                }
            }
        }
    };
}

schedules! {
    Direct(Direct) = "direct",
    Pointwise(Pointwise) = "pointwise",
    Depthwise(Depthwise) = "depthwise",
    Winograd(Winograd) = "winograd",
    Polyphase(Winograd) = "polyphase",
    Product(Product) = "product",
    ImplicitGemm(ImplicitGemm) = "implicit_gemm",
}

impl Schedule {
    /// Elements of a vector; None for the general form, which leaves them to the lowering, and on a GPU.
    pub fn lanes(&self) -> Option<usize> {
        match self {
            Schedule::General | Schedule::ImplicitGemm(_) => None,
            Schedule::Direct(s) => Some(s.lanes),
            Schedule::Pointwise(Pointwise(s)) => Some(s.lanes),
            Schedule::Depthwise(s) => Some(s.lanes),
            Schedule::Winograd(s) | Schedule::Polyphase(s) => Some(s.lanes),
            Schedule::Product(s) => Some(s.lanes),
        }
    }

    /// Whether it reads and writes weights in blocks of [`Schedule::lanes`] output channels
    /// ([`crate::Layout::Filter`]).
    pub fn blocks_filters(&self) -> bool {
        match self {
            Schedule::Direct(_) | Schedule::Pointwise(_) | Schedule::Winograd(_) | Schedule::Polyphase(_) => {
                true
            }
            Schedule::General | Schedule::Depthwise(_) | Schedule::Product(_) | Schedule::ImplicitGemm(_) => {
                false
            }
        }
    }

    /// Whether it is for GPUs, and not for processors; None where it is for both.
    pub fn is_for_gpus(&self) -> Option<bool> {
        match self {
            Schedule::General => None,
            Schedule::ImplicitGemm(_) => Some(true),
            Schedule::Direct(_)
            | Schedule::Pointwise(_)
            | Schedule::Depthwise(_)
            | Schedule::Winograd(_)
            | Schedule::Polyphase(_)
            | Schedule::Product(_) => Some(false),
        }
    }

    /// The layout of the transformed weights that it reads; None where it reads weights as they are.
    pub fn transformed_filter(&self) -> Option<Layout> {
        match self {
            Schedule::Winograd(s) if s.prepared => Some(Layout::Winograd(s.chunk())),
            Schedule::Polyphase(s) if s.prepared => Some(Layout::Polyphase(s.chunk())),
            _ => None,
        }
    }
}
