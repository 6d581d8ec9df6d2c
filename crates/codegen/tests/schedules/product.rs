//! Matrix products, as cases of a schedule.

use syncbn_ir::ops::MatMul;
use syncbn_ir::{DType, Dim, Layout, Schedule, Shape, TensorType};

use crate::module::Case;

/// Rows, terms and columns of a product; None is the batch.
pub type Sizes = [Option<usize>; 3];

/// A product under a schedule.
pub fn product(
    sizes: Sizes,
    transposed: [bool; 2],
    dtype: DType,
    schedule: Schedule,
    tolerance: f64,
) -> Case {
    let [rows, terms, columns] = sizes.map(|size| size.map_or(Dim::Batch, Dim::Fixed));
    let matrix = |[a, b]: [Dim; 2], transposed: bool| {
        let dims = if transposed { vec![b, a] } else { vec![a, b] };
        TensorType::new(dtype, Shape(dims))
    };
    let op = MatMul {
        transpose_a: transposed[0],
        transpose_b: transposed[1],
        wide: false,
    };
    Case {
        name: format!("matmul {dtype} {schedule:?} {sizes:?} {transposed:?}"),
        op: op.into(),
        operands: vec![
            matrix([rows, terms], transposed[0]),
            matrix([terms, columns], transposed[1]),
        ],
        result: Layout::Plain,
        schedule,
        tolerance,
        mean: 0.0,
    }
}
