//! The memory plan, checked by an execution in one flat memory: every node reads what its operands' places
//! hold at that moment, so an overlap of live values, a wrong alias or a missing copy changes the results.

use std::collections::BTreeMap;

use syncbn_ir::ops::StepInfo;
use syncbn_ir::schedule::Products;
use syncbn_ir::{Arena, Array, DType, Graph, Location, Named, Op, OutputKind, State, Value, initial_state};
use syncbn_passes::{
    BatchNormMode, Gpu, Mode, Options, Order, PassContext, Plan, Report, Selection, Target, inference_graph,
    run_passes, training_graph,
};

use crate::networks::NETWORKS;
use crate::support::{assert_close, inputs, options, run, split};

/// Memory cell by cell: (arena, byte) to who wrote it and its value. Cells are as wide as elements.
#[derive(Default)]
struct Memory(BTreeMap<(Arena, u64), (u64, f64)>);

impl Memory {
    fn cell(location: Location, i: usize, dtype: DType) -> (Arena, u64) {
        match location.arena {
            // Buffers of the caller are apart from each other.
            Arena::Inputs | Arena::Outputs => {
                (location.arena, (location.offset << 32) + i as u64 * dtype.bytes())
            }
            _ => (location.arena, location.offset + i as u64 * dtype.bytes()),
        }
    }

    fn write(&mut self, location: Location, array: &Array, dtype: DType) {
        // An element covers all its bytes: what began in them is gone.
        for (i, &v) in array.data.iter().enumerate() {
            let (arena, byte) = Memory::cell(location, i, dtype);
            let gone: Vec<(Arena, u64)> = self
                .0
                .range((arena, byte.saturating_sub(7))..(arena, byte + dtype.bytes()))
                .filter(|((_, b), (width, _))| b + width > byte)
                .map(|(&k, _)| k)
                .collect();
            for key in gone {
                self.0.remove(&key);
            }
            self.0.insert((arena, byte), (dtype.bytes(), v));
        }
    }

    /// Forgets what lies in these bytes.
    fn clear(&mut self, Location { arena, offset }: Location, bytes: u64) {
        let range = (arena, offset)..(arena, offset + bytes);
        let gone: Vec<(Arena, u64)> = self.0.range(range).map(|(&k, _)| k).collect();
        for key in gone {
            self.0.remove(&key);
        }
    }

    fn read(&self, location: Location, dims: &[usize], dtype: DType) -> Option<Array> {
        let len = dims.iter().product();
        let cells = (0..len).map(|i| match self.0.get(&Memory::cell(location, i, dtype)) {
            Some(&(width, v)) if width == dtype.bytes() => Some(v),
            _ => None,
        });
        Some(Array::new(dims, cells.collect::<Option<Vec<f64>>>()?))
    }
}

fn place(graph: &Graph, v: Value) -> Location {
    graph.node(v.node).outputs[v.slot]
        .location
        .expect("every value has a place")
}

/// Runs a planned graph on one rank and returns its memory.
fn execute(
    graph: &Graph,
    plan: &Plan,
    (data, state): (&Named, &State),
    n: usize,
    options: &Options,
) -> Memory {
    let mut memory = Memory::default();
    for id in graph.nodes() {
        let array = match graph.op(id) {
            Op::Input(i) => &data[&i.name],
            Op::Parameter(p) => &state.parameters[&p.name],
            Op::Statistic(s) => &state.statistics[0][&s.name],
            Op::Constant(c) => &c.value.to_array(),
            _ => continue,
        };
        memory.write(place(graph, id.into()), array, graph.ty(id.into()).dtype);
    }
    for &id in plan.prepare.iter().chain(&plan.step) {
        let workspace = graph.node(id).workspace;
        let bytes = options.target.workspace_bytes(graph, id, options.batch_bound);
        assert_eq!(workspace.is_some(), bytes > 0, "{graph}");
        // What lies in the workspace is gone before operands are read, and after results are written.
        let clear = |memory: &mut Memory| workspace.iter().for_each(|&place| memory.clear(place, bytes));
        clear(&mut memory);
        let read = |v: &Value| {
            let ty = graph.ty(*v);
            let array = memory.read(place(graph, *v), &ty.shape.sizes(n), ty.dtype);
            array.unwrap_or_else(|| panic!("{} reads what was overwritten:\n{graph}", graph.op(id).name()))
        };
        let operands: Vec<Array> = graph.operands(id).iter().map(read).collect();
        let operands: Vec<&Array> = operands.iter().collect();
        let results = graph
            .op(id)
            .evaluate(&operands, StepInfo { n, total: n })
            .unwrap();
        for (slot, array) in results.iter().enumerate() {
            let v = Value { node: id, slot };
            memory.write(place(graph, v), array, graph.ty(v).dtype);
        }
        clear(&mut memory);
    }
    memory
}

/// Fails unless the planned graph computes in flat memory what the reference evaluation computes.
pub fn check_memory(name: &str, (graph, report): (&Graph, &Report), state: &State, options: &Options) {
    let plan = report.plan.as_ref().unwrap();
    let n = 5;
    let data = inputs(graph, n, 17);
    let expected = run(graph, &split(&data, &[n]), state);
    let memory = execute(graph, plan, (&data, state), n, options);
    let mut index = 0;
    for output in &graph.outputs {
        let ty = graph.ty(output.value);
        let location = place(graph, output.value);
        let layout = &plan.layout;
        let expected_place = match output.kind {
            OutputKind::Output => {
                index += 1;
                Some((Arena::Outputs, index - 1))
            }
            OutputKind::Gradient => Some((Arena::Gradients, layout.parameter(&output.name).unwrap().offset)),
            OutputKind::Statistic => {
                Some((Arena::Statistics, layout.statistic(&output.name).unwrap().offset))
            }
            OutputKind::Loss => None,
        };
        if let Some(expected) = expected_place {
            assert_eq!(
                (location.arena, location.offset),
                expected,
                "{name}: {}",
                output.name
            );
        }
        let found = memory.read(location, &ty.shape.sizes(n), ty.dtype);
        let found = found.unwrap_or_else(|| panic!("{name}: {} was overwritten", output.name));
        assert_close(
            name,
            &found,
            expected[0].get(output.kind, &output.name).unwrap(),
            0.0,
        );
    }
}

/// What needs no workspaces, and a GPU, where sums leave parts in theirs.
fn targets() -> [Target; 2] {
    let gpu = Target {
        order: Order::ChannelsLast,
        channel_multiple: 4,
        gpu: Some(Gpu::a100(Products::Tf32)),
        ..Target::default()
    };
    [Target::default(), gpu]
}

/// The arena of a GPU is at most as large as one without workspaces and the largest of these.
#[test]
fn a_workspace_is_added_at_most_once() {
    let mut hidden = 0;
    for (name, build) in NETWORKS {
        let network = build().unwrap();
        let [_, target] = targets();
        let options = Options { target, ..options() };
        let (graph, report) = training_graph(&network, &options).unwrap();
        let bytes = |id| graph.gpu_workspace_bytes(id, options.batch_bound);
        let largest = graph.nodes().map(bytes).max().unwrap().next_multiple_of(64);
        let mut without = graph.clone();
        for id in graph.nodes() {
            without.set_schedule(id, None);
        }
        let mut cx = PassContext::new(Options {
            target: Target::default(),
            ..options.clone()
        });
        run_passes(
            &mut without,
            &Selection::of(&["plan-memory"]),
            &mut cx,
            &mut |_, _| {},
        )
        .unwrap();
        let (now, values) = (report.plan.unwrap().step_bytes, cx.plan.unwrap().step_bytes);
        assert!(now <= values + largest, "{name}: {now}, {values} and {largest}");
        hidden += usize::from(now < values + largest);
    }
    assert!(hidden > 3, "{hidden}");
}

#[test]
fn training_in_flat_memory() {
    for (name, build) in NETWORKS {
        let network = build().unwrap();
        let state = initial_state(&network, 3).unwrap();
        for batch_norm in [
            BatchNormMode::Sync,
            BatchNormMode::Local,
            BatchNormMode::Group(1),
            BatchNormMode::Frozen,
        ] {
            for target in targets() {
                let options = Options {
                    batch_norm,
                    target,
                    ..options()
                };
                let (graph, report) = training_graph(&network, &options).unwrap();
                check_memory(
                    &format!("{name} {batch_norm:?}"),
                    (&graph, &report),
                    &state,
                    &options,
                );
            }
        }
    }
}

#[test]
fn inference_in_flat_memory() {
    for (name, build) in NETWORKS {
        let network = build().unwrap();
        let state = initial_state(&network, 3).unwrap();
        let (_, training) = training_graph(&network, &options()).unwrap();
        let layout = training.plan.unwrap().layout;
        let options = options();
        let (graph, report) = inference_graph(&network, &options, Some(&layout)).unwrap();
        assert_eq!(report.plan.as_ref().unwrap().layout, layout, "{name}");
        check_memory(name, (&graph, &report), &state, &options);
        // What is prepared is not touched by the step, and the step reads no constants of its own making.
        for &id in &report.plan.as_ref().unwrap().step {
            for output in &graph.node(id).outputs {
                let alias = matches!(graph.op(id), Op::Reshape(_));
                assert!(
                    alias || output.location.unwrap().arena != Arena::Prepared,
                    "{name}\n{graph}"
                );
            }
        }
    }
}

/// No two values that are live at the same time overlap, by a check that knows nothing of how they were placed.
#[test]
fn live_values_do_not_overlap() {
    for (name, build) in NETWORKS {
        let network = build().unwrap();
        for mode in [Mode::Train, Mode::Infer] {
            let (graph, report) = match mode {
                Mode::Train => training_graph(&network, &options()).unwrap(),
                Mode::Infer => inference_graph(&network, &options(), None).unwrap(),
            };
            let plan = report.plan.unwrap();
            let mut order: Vec<_> = plan.prepare.clone();
            order.extend(&plan.step);
            let at = |id| order.iter().position(|&o| o == id).unwrap();
            let mut lives = Vec::new();
            for &id in &order {
                for (slot, info) in graph.node(id).outputs.iter().enumerate() {
                    let v = Value { node: id, slot };
                    let place = info.location.unwrap();
                    if place.arena != Arena::Step {
                        continue;
                    }
                    assert_eq!(place.offset % 64, 0);
                    let bytes = info.ty.bytes(options().batch_bound).unwrap();
                    assert!(place.offset + bytes <= plan.step_bytes);
                    let last = graph
                        .users(v)
                        .into_iter()
                        .map(|(user, _)| at(user))
                        .max()
                        .unwrap_or(at(id));
                    let last = if graph.is_output(v) { order.len() } else { last };
                    lives.push((v, place.offset, place.offset + bytes, at(id), last));
                }
            }
            for (i, a) in lives.iter().enumerate() {
                for b in &lives[..i] {
                    let memory = a.1 < b.2 && b.1 < a.2;
                    // A result may take the place of an operand whose last reader it is.
                    let time = a.3 < b.4 && b.3 < a.4 || a.3 == b.3;
                    let alias = [(a, b), (b, a)].iter().any(|(x, y)| {
                        matches!(graph.op(x.0.node), Op::Reshape(_)) && graph.operands(x.0.node)[0] == y.0
                    });
                    assert!(!(memory && time) || alias, "{name}: {a:?} and {b:?}\n{graph}");
                }
            }
        }
    }
}

#[test]
fn what_is_all_reduced_is_contiguous() {
    for (name, build) in NETWORKS {
        let (graph, report) = training_graph(&build().unwrap(), &options()).unwrap();
        let layout = report.plan.unwrap().layout;
        let mut end = 0;
        for output in graph.outputs.iter().filter(|o| o.kind == OutputKind::Gradient) {
            if !matches!(graph.op(output.value.node), Op::AllReduce(_)) {
                let offset = layout.parameter(&output.name).unwrap().offset;
                assert!(offset >= layout.reduced_bytes, "{name}: {}", output.name);
                continue;
            }
            let tensor = layout.parameter(&output.name).unwrap();
            assert_eq!(tensor.offset, end, "{name}: {}", output.name);
            end = (tensor.offset + tensor.ty.bytes(0).unwrap()).next_multiple_of(64);
        }
        assert_eq!(end, layout.reduced_bytes, "{name}");
        assert!(layout.reduced_bytes <= layout.trained_bytes && layout.trained_bytes <= layout.weight_bytes);
    }
}
