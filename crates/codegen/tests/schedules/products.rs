//! Matrix products: cases by hand.

use syncbn_ir::schedule::Product;
use syncbn_ir::{DType, Schedule};

use crate::harness::run_in_all_widths;
use crate::module::Case;
use crate::product::{Sizes, product};

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

/// Products in blocks, and in the general form.
pub fn products(dtype: DType, lanes: usize) -> Vec<Case> {
    let tolerance = if dtype == DType::F32 { 5e-6 } else { 1e-13 };
    let mut cases = Vec::new();
    for (i, (sizes, transposed)) in shapes().into_iter().enumerate() {
        let blocked = Schedule::Product(Product {
            lanes,
            pixels: [8, 3, 1, 6, 4][i % 5],
            vectors: [2, 1, 3][i % 3],
            depth: [16, 1000, 3, 2][i % 4],
        });
        for schedule in [blocked, Schedule::General] {
            cases.push(product(sizes, transposed, dtype, schedule, tolerance));
        }
    }
    cases
}

#[test]
fn products_agree_in_all_orders_and_widths() {
    run_in_all_widths(products);
}
