//! Data, splits and comparisons.

use syncbn_ir::ops::Role;
use syncbn_ir::training::Generator;
use syncbn_ir::{Array, DType, Graph, Named, Op, OutputKind, RankInputs, RankOutputs, State, evaluate};
use syncbn_passes::{Options, PassContext, Selection, run_passes};

/// Options for these networks; the loss is that of the output `logits`.
pub fn options() -> Options {
    Options {
        loss_output: Some("logits".to_string()),
        batch_bound: 8,
        ..Options::default()
    }
}

/// A copy of the graph after these passes.
pub fn after(graph: &Graph, passes: &[&str], options: &Options) -> Graph {
    let mut graph = graph.clone();
    let mut cx = PassContext::new(options.clone());
    run_passes(&mut graph, &Selection::of(passes), &mut cx, &mut |_, _| {}).unwrap();
    graph
}

/// Random inputs of `n` samples, targets included.
pub fn inputs(graph: &Graph, n: usize, seed: u64) -> Named {
    let mut generator = Generator(seed);
    let mut named = Named::new();
    for id in graph.nodes() {
        let Op::Input(input) = graph.op(id) else { continue };
        let mut array = generator.array(&input.ty.shape.sizes(n));
        if input.ty.dtype == DType::I64 {
            assert_eq!(input.role, Role::Target);
            array
                .data
                .iter_mut()
                .for_each(|v| *v = (v.abs() * 7.0).floor() % 3.0);
        }
        named.insert(input.name.clone(), array);
    }
    named
}

/// The samples of every rank, in order.
pub fn split(whole: &Named, counts: &[usize]) -> Vec<RankInputs> {
    let mut begin = 0;
    let mut ranks = Vec::new();
    for &n in counts {
        let part = |array: &Array| {
            let row: usize = array.dims[1..].iter().product();
            let dims = [&[n], &array.dims[1..]].concat();
            Array::new(&dims, array.data[begin * row..(begin + n) * row].to_vec())
        };
        let values = whole
            .iter()
            .map(|(name, array)| (name.clone(), part(array)))
            .collect();
        ranks.push(RankInputs { n, values });
        begin += n;
    }
    ranks
}

/// Runs a step.
pub fn run(graph: &Graph, ranks: &[RankInputs], state: &State) -> Vec<RankOutputs> {
    evaluate(graph, ranks, state).unwrap_or_else(|e| panic!("{e}\n{graph}"))
}

/// Largest difference relative to the largest magnitude.
pub fn difference(a: &Array, b: &Array) -> f64 {
    assert_eq!(a.dims, b.dims);
    let scale = b.data.iter().fold(1e-3, |m: f64, v| m.max(v.abs()));
    let pairs = a.data.iter().zip(&b.data);
    pairs.fold(0.0, |m: f64, (x, y)| {
        if (x - y).is_nan() {
            f64::INFINITY
        } else {
            m.max((x - y).abs() / scale)
        }
    })
}

/// Fails unless two outputs agree.
pub fn assert_close(what: &str, a: &Array, b: &Array, tolerance: f64) {
    let d = difference(a, b);
    assert!(d <= tolerance, "{what}: difference {d:e}, allowed {tolerance:e}");
}

/// The outputs of all ranks as those of one: samples joined, everything else from rank 0.
pub fn joined(graph: &Graph, outputs: &[RankOutputs], kind: OutputKind, name: &str) -> Array {
    let value = graph.output(kind, name).unwrap();
    let parts: Vec<&Array> = outputs.iter().map(|o| o.get(kind, name).unwrap()).collect();
    if !graph.ty(value).shape.has_batch() {
        return parts[0].clone();
    }
    let n = parts.iter().map(|p| p.dims[0]).sum();
    let dims = [&[n], &parts[0].dims[1..]].concat();
    Array::new(&dims, parts.iter().flat_map(|p| p.data.clone()).collect())
}
