//! Matrix products: cases by hand.

use syncbn_ir::ops::MatMul;
use syncbn_ir::schedule::Product;
use syncbn_ir::{DType, Dim, Layout, Schedule, Shape, TensorType};

use crate::convolutions::widths;
use crate::harness::{Case, run};

/// Rows, terms and columns of a product; None is the batch.
type Sizes = [Option<usize>; 3];

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
    }
}

/// Those with the batch as rows, as terms, and without it, in all orders in memory that there are.
fn shapes() -> Vec<(Sizes, [bool; 2])> {
    let mut all = Vec::new();
    for (terms, columns) in [(64, 32), (33, 10), (7, 65), (130, 1)] {
        for transpose_b in [false, true] {
            all.push(([None, Some(terms), Some(columns)], [false, transpose_b]));
            all.push(([Some(9), Some(terms), Some(columns)], [false, transpose_b]));
            all.push(([Some(20), Some(terms), Some(columns)], [true, transpose_b]));
        }
        all.push(([Some(terms), None, Some(columns)], [true, false]));
    }
    all
}

#[test]
fn products_agree_in_all_orders_and_widths() {
    for vector_bytes in widths() {
        for dtype in [DType::F32, DType::F64] {
            let lanes = vector_bytes / dtype.bytes() as usize;
            let tolerance = if dtype == DType::F32 { 5e-6 } else { 1e-13 };
            let mut cases = Vec::new();
            for (i, (sizes, transposed)) in shapes().into_iter().enumerate() {
                let schedule = Schedule::Product(Product {
                    lanes,
                    pixels: [8, 3, 1, 6, 4][i % 5],
                    vectors: [2, 1, 3][i % 3],
                    depth: [16, 1000, 3, 2][i % 4],
                });
                cases.push(product(sizes, transposed, dtype, schedule, tolerance));
            }
            run(&cases, vector_bytes, &[3, 5, 0, 1]);
        }
    }
}
