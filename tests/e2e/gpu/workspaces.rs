//! What kernels need beside their tensors has a place in the step arena, among the values.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value as Json;
use syncbn_compile::ir::{Arena, Graph, Location, parse};
use syncbn_compile::passes::{Mode, Options, PassContext, Plan, Selection, run_passes};

use super::NETWORKS;
use super::kernels::{emit, launches, number, report, step};
use super::kernels_by_hand::write;
use crate::support::fixture;

/// Bytes that partial sums of one kind are aligned to.
const ALIGNMENT: f64 = 256.0;

/// The graphs of training and of inference that a network's GPU part is made of.
fn graphs(model: &Path, flags: &str) -> Vec<(Mode, Graph)> {
    let text = emit(model, "", &format!("--target cuda --emit graph-opt {flags}")).ok();
    let texts = text
        .text()
        .split("\ngraph ")
        .map(|text| match text.starts_with("graph ") {
            true => text.to_string(),
            false => format!("graph {text}"),
        });
    let graphs = texts.map(|text| {
        let graph = parse(&text).unwrap();
        let mode = if graph.name.ends_with(".train") {
            Mode::Train
        } else {
            Mode::Infer
        };
        (mode, graph)
    });
    graphs.collect()
}

/// The largest workspace of each operator and name.
fn planned(graph: &Graph, batch: usize) -> BTreeMap<(String, String), f64> {
    let mut planned = BTreeMap::new();
    for id in graph.nodes() {
        let (node, bytes) = (graph.node(id), graph.gpu_workspace_bytes(id, batch));
        assert_eq!(node.workspace.is_some(), bytes > 0, "{}", node.name);
        if bytes > 0 {
            let key = (node.op.name().to_string(), node.name.clone());
            let most: &mut f64 = planned.entry(key).or_default();
            *most = most.max(bytes as f64);
        }
    }
    planned
}

/// The most that a launch of each operator and name leaves for the next one, in these parts of a report.
fn left(report: &Json, parts: &[&str]) -> BTreeMap<(String, String), f64> {
    let mut left = BTreeMap::new();
    for row in parts.iter().flat_map(|part| launches(step(report, part))) {
        let field = match row["stage"].as_str().unwrap() {
            "merge" => "read_bytes",
            "weights" => "written_bytes",
            _ => continue,
        };
        let key = ["operator", "node"].map(|name| row[name].as_str().unwrap().to_string());
        let most: &mut f64 = left.entry(key.into()).or_default();
        *most = most.max(number(row, field));
    }
    left
}

/// What a node leaves fills the memory that it is given, but for what aligns it.
#[test]
fn workspaces_are_as_large_as_what_kernels_leave_there() {
    let mut count = 0;
    for name in NETWORKS {
        let model = fixture(&format!("dev/{name}.onnx"));
        for precision in ["f32", "tf32", "bf16"] {
            let flags = format!("--precision cuda={precision} --batch 32");
            let report = report(&model, &flags);
            for (mode, graph) in graphs(&model, &flags) {
                let parts: &[&str] = match mode {
                    Mode::Train => &["train"],
                    Mode::Infer => &["prepare", "infer"],
                };
                let (planned, left) = (planned(&graph, 32), left(&report, parts));
                assert!(planned.keys().eq(left.keys()), "{planned:?}\n{left:?}");
                for (node, &bytes) in &planned {
                    let filled = left[node];
                    assert!(
                        filled <= bytes && bytes < filled + ALIGNMENT,
                        "{node:?}: {filled} of {bytes}"
                    );
                }
                count += planned.len();
            }
        }
    }
    assert!(count > 100, "{count}");
}

fn plan(graph: &Graph, mode: Mode, batch: usize) -> Plan {
    let mut graph = graph.clone();
    let options = Options {
        mode,
        batch_bound: batch,
        ..Options::default()
    };
    let mut cx = PassContext::new(options);
    run_passes(
        &mut graph,
        &Selection::of(&["plan-memory"]),
        &mut cx,
        &mut |_, _| {},
    )
    .unwrap();
    cx.plan.unwrap()
}

/// Bytes of the step arena, by the places in it.
fn extent(graph: &Graph, batch: usize) -> u64 {
    let end = |location: Option<Location>, bytes: u64| {
        let in_step = location.filter(|location| location.arena == Arena::Step);
        in_step
            .map_or(0, |location| location.offset + bytes)
            .next_multiple_of(64)
    };
    let of_node = |id| {
        let node = graph.node(id);
        let results = node.outputs.iter();
        let results = results.map(|output| end(output.location, output.ty.bytes(batch).unwrap()));
        let own = end(node.workspace, graph.gpu_workspace_bytes(id, batch));
        results.max().unwrap_or(0).max(own)
    };
    graph.nodes().map(of_node).max().unwrap()
}

/// Bytes of each step arena, and what it was with an area for the largest workspace behind the values.
fn sizes(model: &Path, flags: &str, batch: usize) -> Vec<[u64; 2]> {
    let graphs = graphs(model, &format!("{flags} --batch {batch}"));
    let of_node = |graph: &Graph, id| match graph.node(id).workspace {
        Some(place) if place.arena == Arena::Step => graph.gpu_workspace_bytes(id, batch),
        _ => 0,
    };
    let largest = |graph: &Graph| graph.nodes().map(|id| of_node(graph, id)).max().unwrap();
    let sizes = graphs.iter().map(|(mode, graph)| {
        let mut without = graph.clone();
        for id in graph.nodes() {
            without.set_schedule(id, None);
        }
        let values = plan(&without, *mode, batch).step_bytes;
        [extent(graph, batch), values + largest(graph).next_multiple_of(64)]
    });
    sizes.collect()
}

#[test]
fn the_arena_is_never_larger_for_workspaces_in_its_holes() {
    let mut smaller = 0;
    for name in NETWORKS {
        let model = fixture(&format!("dev/{name}.onnx"));
        for precision in ["f32", "tf32", "bf16"] {
            for [now, before] in sizes(&model, &format!("--precision cuda={precision}"), 32) {
                assert!(now <= before, "{name} {precision}: {now} and {before}");
                smaller += usize::from(now < before);
            }
        }
    }
    assert!(smaller > 10, "{smaller}");
}

#[test]
fn resnet_50_takes_less_memory_for_workspaces_in_its_holes() {
    let folder = tempfile::tempdir().unwrap();
    let (model, _) = write(folder.path());
    for precision in ["tf32", "bf16"] {
        let flags = format!("--init --mode train --precision cuda={precision}");
        let [now, before] = sizes(&model, &flags, 128)[0];
        println!("{precision}: {now} bytes, {before} with an area of their own");
        assert!(now < before, "{precision}: {now} and {before}");
    }
}
