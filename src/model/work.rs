//! How much a node computes and moves, for `bench --per-layer`.

use syncbn_ir::ops::Op;
use syncbn_ir::{Graph, NodeId, TensorType};

/// Multiplications and additions of a node for each sample, when a batch has `batch` of them; 0 where its operator is no
/// sum of products.
pub fn flops(graph: &Graph, id: NodeId, batch: usize) -> u64 {
    let operand = |slot: usize| graph.operands(id).get(slot).map(|&value| graph.ty(value));
    let result = graph.node(id).outputs.first().map(|output| &output.ty);
    let all = match graph.op(id) {
        Op::Conv(_) => of_convolution(result, operand(1), batch),
        Op::ConvBackwardData(_) => of_convolution(operand(0), operand(1), batch),
        Op::ConvBackwardWeight(_) => of_convolution(operand(1), result, batch),
        Op::MatMul(_) => of_product([operand(0), operand(1), result], batch),
        _ => Some(0.0),
    };
    (all.unwrap_or(0.0) / batch.max(1) as f64).round() as u64
}

/// Every element of `y` takes a product with each weight of its channel, whatever the direction.
fn of_convolution(y: Option<&TensorType>, w: Option<&TensorType>, batch: usize) -> Option<f64> {
    let channels = w?.shape.sizes(batch).first().copied()?;
    Some(2.0 * elements(y?, batch) * elements(w?, batch) / channels.max(1) as f64)
}

/// Of matrices `[m, k]`, `[k, n]` and `[m, n]`, transposed or not: the product of their sizes is `(m k n)^2`.
fn of_product(matrices: [Option<&TensorType>; 3], batch: usize) -> Option<f64> {
    let [a, b, c] = matrices;
    let sizes = elements(a?, batch) * elements(b?, batch) * elements(c?, batch);
    Some(2.0 * sizes.sqrt())
}

fn elements(ty: &TensorType, batch: usize) -> f64 {
    ty.shape
        .sizes(batch)
        .into_iter()
        .map(|size| size as f64)
        .product()
}

/// Bytes of a node's operands and results for each sample, when a batch has `batch` of them.
pub fn bytes(graph: &Graph, id: NodeId, batch: usize) -> u64 {
    let operands = graph.operands(id);
    let operands = operands.iter().map(|&value| graph.ty(value));
    let results = graph.node(id).outputs.iter().map(|output| &output.ty);
    let all: u64 = operands.chain(results).filter_map(|ty| ty.bytes(batch)).sum();
    all / batch.max(1) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const NETWORK: &str = r#"graph "g" {
  %0 = input "x" data : f32[batch, 2, 4]
  %1 = parameter "w" trained fill(1) : f32[6, 2, 3]
  %2 = conv(%0, %1) {strides = [1], pads = [1, 1], dilations = [1], groups = 1} : f32[batch, 6, 4] "c"
  %3 = conv_backward_weight(%0, %2) {strides = [1], pads = [1, 1], dilations = [1], groups = 1, kernel = [3]} : f32[6, 2, 3] "w"
  %4 = conv_backward_data(%2, %1) {strides = [1], pads = [1, 1], dilations = [1], groups = 1, input = [4]} : f32[batch, 2, 4] "d"
  %5 = input "m" data : f32[batch, 5]
  %6 = parameter "p" trained fill(1) : f32[5, 7]
  %7 = matmul(%5, %6) : f32[batch, 7] "p"
  %8 = unary(%2) {function = relu} : f32[batch, 6, 4] "r"
  return
    output "y" %8,
    output "z" %7
}
"#;

    #[test]
    fn sums_of_products_count_multiplications_and_additions_whatever_the_batch() {
        let graph: Graph = syncbn_ir::parse(NETWORK).unwrap();
        let of = |name: &str, batch| {
            let id = graph.nodes().find(|&id| graph.node(id).name == name).unwrap();
            (flops(&graph, id, batch), bytes(&graph, id, batch))
        };
        let products = 2 * 6 * 4 * 2 * 3;
        for batch in [1, 8] {
            for direction in ["c", "w", "d"] {
                assert_eq!(of(direction, batch).0, products, "{direction}");
            }
            assert_eq!(of("p", batch).0, 2 * 5 * 7);
            assert_eq!(of("r", batch), (0, 4 * 2 * 6 * 4));
        }
        assert_eq!(of("c", 1).1, 4 * (2 * 4 + 6 * 2 * 3 + 6 * 4));
        assert_eq!(of("c", 36).1, 4 * (2 * 4 + 1 + 6 * 4));
    }
}
