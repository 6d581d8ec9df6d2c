//! Where the time of a step goes: `bench --per-layer`.

use serde::Serialize;
use syncbn_abi::Node;

/// A node of the optimised graph, with its median time in a step of the first rank.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Layer {
    name: String,
    op: String,
    /// What computes it; empty where there is one way only.
    schedule: String,
    ms: f64,
    /// Part of the time of all nodes.
    share: f64,
    /// Multiplications and additions of a step; 0 where the operator is no sum of products.
    flops: u64,
    /// Bytes of its operands and results in a step.
    bytes: u64,
}

/// The nodes that took time, the longest first: `seconds` are those of a step of `batch` samples of a rank.
pub fn layers(nodes: &[Node], seconds: &[f64], batch: u64) -> Vec<Layer> {
    let all: f64 = seconds.iter().sum();
    let timed = nodes.iter().zip(seconds).filter(|(_, seconds)| **seconds > 0.0);
    let mut layers: Vec<Layer> = timed
        .map(|(node, seconds)| Layer {
            name: node.name.clone(),
            op: node.op.clone(),
            schedule: node.schedule.clone(),
            ms: seconds * 1e3,
            share: seconds / all,
            flops: node.flops * batch,
            bytes: node.bytes * batch,
        })
        .collect();
    layers.sort_by(|a, b| b.ms.total_cmp(&a.ms));
    layers
}

/// A table for people.
pub fn table(layers: &[Layer]) -> String {
    let head = format!(
        "{:>9} {:>7} {:>9} {:>9} {:>8}  {:<11} {:<26} node",
        "ms", "share", "GFLOP/s", "MB", "GB/s", "schedule", "operator"
    );
    let row = |layer: &Layer| {
        let per_second = |amount: u64| match amount {
            0 => "-".to_string(),
            _ => format!("{:.1}", amount as f64 / layer.ms / 1e6),
        };
        // The name; the blocking is in the JSON.
        let schedule = match layer.schedule.split('(').next() {
            Some(name) if !name.is_empty() => name,
            _ => "-",
        };
        format!(
            "{:>9.3} {:>6.1}% {:>9} {:>9.2} {:>8}  {schedule:<11} {:<26} {}",
            layer.ms,
            100.0 * layer.share,
            per_second(layer.flops),
            layer.bytes as f64 / 1e6,
            per_second(layer.bytes),
            layer.op,
            layer.name
        )
    };
    let rows = layers.iter().map(row);
    std::iter::once(head).chain(rows).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_comes_first_with_its_rates() {
        let node = |name: &str, flops, bytes, schedule: &str| Node {
            name: name.into(),
            op: "conv".into(),
            flops,
            bytes,
            schedule: schedule.into(),
        };
        let nodes = [
            node("input", 0, 0, ""),
            node("a", 500_000, 0, "winograd"),
            node("b", 0, 250_000, ""),
        ];
        let layers = layers(&nodes, &[0.0, 0.001, 0.003], 4);
        assert_eq!(layers.len(), 2);
        assert_eq!((layers[0].name.as_str(), layers[0].bytes), ("b", 1_000_000));
        assert!((layers[0].ms - 3.0).abs() < 1e-9 && (layers[0].share - 0.75).abs() < 1e-9);
        let table = table(&layers);
        let rows: Vec<Vec<&str>> = table
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert_eq!(rows[1], ["3.000", "75.0%", "-", "1.00", "0.3", "-", "conv", "b"]);
        assert_eq!(
            rows[2],
            ["1.000", "25.0%", "2.0", "0.00", "-", "winograd", "conv", "a"]
        );
    }
}
