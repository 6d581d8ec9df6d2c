//! The gradient of every operator, alone between data, weights and a loss, against finite differences.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;

use syncbn_ir::ops::*;
use syncbn_ir::{Array, DType, Dim, Graph, Op, Output, OutputKind, Shape, TensorType, initial_state};
use syncbn_passes::{Loss, Options};

use crate::support::{after, inputs, options, run, split};

/// Operators that have no derivative: sources, what is lowered already, backward operators themselves.
const WITHOUT_DERIVATIVE: [&str; 19] = [
    "input",
    "parameter",
    "statistic",
    "constant",
    "conv_backward_data",
    "conv_backward_weight",
    "batch_norm_backward",
    "moments",
    "batch_norm_finalize",
    "normalize",
    "batch_norm_backward_reduce",
    "batch_norm_backward_data",
    "all_reduce",
    "unary_backward",
    "max_pool_backward",
    "average_pool_backward",
    "resize_backward",
    "softmax_cross_entropy_backward",
    "mean_squared_error_backward",
];

/// One operator in a network of its own.
struct Case {
    op: Op,
    /// Sizes of its data operands after the batch.
    data: Vec<Vec<usize>>,
    /// Sizes of its further operands, which are weights.
    weights: Vec<Vec<usize>>,
    /// Values of operands are kept this far above 0, where not None.
    positive: Option<f64>,
    loss: Loss,
}

fn case(op: impl Into<Op>, data: &[&[usize]], weights: &[&[usize]]) -> Case {
    let sizes = |list: &[&[usize]]| list.iter().map(|s| s.to_vec()).collect();
    Case {
        op: op.into(),
        data: sizes(data),
        weights: sizes(weights),
        positive: None,
        loss: Loss::MeanSquaredError,
    }
}

/// The operator between inputs `x0`, `x1`..., parameters `w0`, `w1`... and the output `logits`. A result without
/// a batch is added to an input, so that it has one.
fn network(case: &Case) -> Graph {
    let mut graph = Graph::new("operator");
    let mut operands = Vec::new();
    let batched = |sizes: &[usize]| {
        let dims = sizes.iter().map(|&n| Dim::Fixed(n));
        TensorType::new(
            DType::F64,
            Shape(std::iter::once(Dim::Batch).chain(dims).collect()),
        )
    };
    let input = |graph: &mut Graph, name: &str, sizes: &[usize]| {
        let input = Input {
            name: name.to_string(),
            role: Role::Data,
            ty: batched(sizes),
        };
        graph.add_value(input, name, &[]).unwrap()
    };
    for (i, sizes) in case.data.iter().enumerate() {
        operands.push(input(&mut graph, &format!("x{i}"), sizes));
    }
    for (i, sizes) in case.weights.iter().enumerate() {
        let name = format!("w{i}");
        let parameter = Parameter {
            name: name.clone(),
            trained: true,
            ty: TensorType::fixed(DType::F64, sizes),
            data: ParameterData::KaimingNormal { fan_in: 2 },
        };
        operands.push(graph.add_value(parameter, &name, &[]).unwrap());
    }
    if matches!(case.op, Op::BatchNorm(_)) {
        for (name, fill) in [("mean", 0.3), ("var", 0.8)] {
            let ty = graph.ty(operands[1]).clone();
            let statistic = Statistic {
                name: name.to_string(),
                ty,
                data: ParameterData::Fill(fill),
            };
            operands.push(graph.add_value(statistic, name, &[]).unwrap());
        }
    }
    let mut y = graph.add_value(case.op.clone(), "op", &operands).unwrap();
    let ty = graph.ty(y).clone();
    if !ty.shape.has_batch() {
        let shape = Shape::fixed(&[1, ty.shape.elements_per_sample().unwrap()]);
        let row = graph.add_value(Reshape { shape }, "row", &[y]).unwrap();
        let x = input(&mut graph, "x", &[1]);
        let function = BinaryFunction::Add;
        y = graph.add_value(Binary { function }, "sum", &[row, x]).unwrap();
    }
    if graph.ty(y).shape.rank() == 1 {
        let shape = Shape(vec![Dim::Batch, Dim::Fixed(1)]);
        y = graph.add_value(Reshape { shape }, "column", &[y]).unwrap();
    }
    let (kind, name) = (OutputKind::Output, "logits".to_string());
    graph.outputs.push(Output { kind, name, value: y });
    graph
}

/// Compares all gradients of the case's network.
fn check(case: &Case) {
    let wanted = Options {
        input_gradients: true,
        loss: case.loss,
        ..options()
    };
    let network = network(case);
    let forward = after(&network, &["add-loss"], &wanted);
    let graph = after(&forward, &["differentiate"], &wanted);
    let mut state = initial_state(&network, 3).unwrap();
    let mut data = inputs(&graph, 3, 11);
    if let Some(least) = case.positive {
        let arrays = state.parameters.values_mut().chain(data.values_mut());
        arrays.for_each(|a| a.data.iter_mut().for_each(|v| *v = v.abs() + least));
    }
    let loss = |data: &syncbn_ir::Named, state: &syncbn_ir::State| {
        let outputs = run(&forward, &split(data, &[3]), state);
        outputs[0].get(OutputKind::Loss, "loss").unwrap().data[0]
    };
    let outputs = run(&graph, &split(&data, &[3]), &state);
    let mut checked = 0;
    for (tensor, gradient) in outputs[0].of_kind(OutputKind::Gradient) {
        let scale = gradient.data.iter().fold(1e-3, |m: f64, v| m.max(v.abs()));
        for i in 0..gradient.len() {
            let at = |h: f64| {
                let (mut state, mut data) = (state.clone(), data.clone());
                let array: &mut Array = match state.parameters.get_mut(tensor) {
                    Some(array) => array,
                    None => data.get_mut(tensor).unwrap(),
                };
                array.data[i] += h;
                loss(&data, &state)
            };
            let h = 1e-4;
            let slope = (8.0 * (at(h) - at(-h)) - (at(2.0 * h) - at(-2.0 * h))) / (12.0 * h);
            let error = (slope - gradient.data[i]).abs() / scale;
            assert!(
                error < 1e-8,
                "{tensor}[{i}] is {} expected {slope} for {:?}",
                gradient.data[i],
                case.op
            );
            checked += 1;
        }
    }
    assert!(checked > 0, "{:?} has no gradients", case.op);
}

fn convolutions() -> Vec<Case> {
    let conv = |strides: &[usize], pads: &[usize], dilations: &[usize], groups| Conv {
        strides: strides.to_vec(),
        pads: pads.to_vec(),
        dilations: dilations.to_vec(),
        groups,
        moments: false,
        activation: None,
    };
    vec![
        case(conv(&[2], &[1, 0], &[2], 1), &[&[2, 7]], &[&[3, 2, 2], &[3]]),
        case(
            conv(&[1, 2], &[1, 0, 1, 2], &[1, 1], 2),
            &[&[4, 3, 5]],
            &[&[2, 2, 3, 2]],
        ),
        case(
            conv(&[1; 3], &[0, 1, 0, 0, 0, 1], &[1; 3], 1),
            &[&[1, 2, 2, 3]],
            &[&[2, 1, 2, 2, 1]],
        ),
    ]
}

fn products() -> Vec<Case> {
    let mut cases = Vec::new();
    for (transpose_b, w) in [(false, [3, 2]), (true, [2, 3])] {
        let product = MatMul {
            transpose_a: false,
            transpose_b,
            wide: false,
        };
        cases.push(case(product.clone(), &[&[3]], &[&w]));
        cases.push(case(product, &[], &[&[4, 3], &w]));
        let product = MatMul {
            transpose_a: true,
            transpose_b,
            wide: false,
        };
        cases.push(case(product, &[], &[&[3, 4], &w]));
    }
    cases
}

fn norms() -> Vec<Case> {
    let norm = |training| BatchNorm {
        epsilon: 1e-2,
        momentum: 0.1,
        running_var: RunningVar::Pytorch,
        training,
        onnx_training: false,
    };
    [true, false]
        .into_iter()
        .map(|training| case(norm(training), &[&[2, 3, 2]], &[&[2], &[2]]))
        .collect()
}

fn elementwise() -> Vec<Case> {
    let anywhere = [
        UnaryFunction::Relu,
        UnaryFunction::Sigmoid,
        UnaryFunction::Silu,
        UnaryFunction::Clip { min: -0.4, max: 0.9 },
        UnaryFunction::Clip {
            min: f64::NEG_INFINITY,
            max: 0.5,
        },
        UnaryFunction::HardSigmoid {
            alpha: 0.2,
            beta: 0.5,
        },
        UnaryFunction::HardSigmoid {
            alpha: -1.5,
            beta: 0.3,
        },
        UnaryFunction::HardSwish,
        UnaryFunction::LeakyRelu { alpha: 0.01 },
        UnaryFunction::LeakyRelu { alpha: -0.5 },
        UnaryFunction::Tanh,
        UnaryFunction::Erf,
        UnaryFunction::Gelu,
        UnaryFunction::GeluTanh,
        UnaryFunction::Neg,
    ];
    let mut cases: Vec<Case> = anywhere
        .into_iter()
        .map(|function| case(Unary { function }, &[&[40]], &[]))
        .collect();
    for function in [UnaryFunction::Sqrt, UnaryFunction::Rsqrt] {
        cases.push(Case {
            positive: Some(0.5),
            ..case(Unary { function }, &[&[9]], &[])
        });
    }
    let functions = [
        BinaryFunction::Add,
        BinaryFunction::Sub,
        BinaryFunction::Mul,
        BinaryFunction::Div,
    ];
    for function in functions {
        type Sizes = &'static [&'static [usize]];
        let shapes: [(Sizes, Sizes); 5] = [
            (&[&[2, 3], &[2, 3]], &[]),
            (&[&[2, 3], &[1, 3]], &[]),
            (&[&[2, 3]], &[&[3]]),
            (&[&[2, 1]], &[&[1, 1, 3]]),
            (&[], &[&[2], &[3, 1]]),
        ];
        for (data, weights) in shapes {
            cases.push(Case {
                positive: (function == BinaryFunction::Div).then_some(0.5),
                ..case(Binary { function }, data, weights)
            });
        }
    }
    cases
}

fn reductions() -> Vec<Case> {
    let mut cases = Vec::new();
    for (function, keep_dims) in [
        (ReduceFunction::Sum, true),
        (ReduceFunction::Sum, false),
        (ReduceFunction::Mean, true),
        (ReduceFunction::Mean, false),
    ] {
        for axes in [vec![1], vec![2], vec![1, 3], vec![1, 2, 3]] {
            let reduce = Reduce {
                function,
                axes,
                keep_dims,
            };
            cases.push(case(reduce, &[&[2, 3, 2]], &[]));
        }
    }
    let over_samples = Reduce {
        function: ReduceFunction::Sum,
        axes: vec![0],
        keep_dims: true,
    };
    cases.push(case(over_samples, &[&[4]], &[]));
    cases
}

fn step(step: usize) -> NonZeroUsize {
    NonZeroUsize::new(step).unwrap()
}

fn moves() -> Vec<Case> {
    let shape = |sizes: &[usize]| {
        let dims = sizes.iter().map(|&n| Dim::Fixed(n));
        Shape(std::iter::once(Dim::Batch).chain(dims).collect())
    };
    let mut cases = vec![
        case(
            Expand {
                shape: shape(&[2, 3]),
            },
            &[&[2, 1]],
            &[],
        ),
        case(
            Expand {
                shape: shape(&[2, 3]),
            },
            &[],
            &[&[3]],
        ),
        case(Reshape { shape: shape(&[6]) }, &[&[2, 3]], &[]),
        case(
            Reshape {
                shape: Shape::fixed(&[1, 6]),
            },
            &[],
            &[&[2, 3]],
        ),
        case(
            Transpose {
                permutation: vec![0, 2, 3, 1],
            },
            &[&[2, 3, 2]],
            &[],
        ),
        case(
            Transpose {
                permutation: vec![1, 0],
            },
            &[],
            &[&[2, 3]],
        ),
        case(Concat { axis: 1 }, &[&[2, 3], &[1, 3], &[4, 3]], &[]),
        case(Concat { axis: 2 }, &[&[2, 3], &[2, 1]], &[]),
        case(Concat { axis: 0 }, &[], &[&[2, 3], &[1, 3]]),
        case(Cast { dtype: DType::F64 }, &[&[3]], &[]),
        case(Identity {}, &[&[3]], &[]),
        case(Dropout { ratio: 0.5 }, &[&[3]], &[]),
    ];
    for (axis, begin, end, by) in [
        (1, 0, 2, 1),
        (1, 2, 7, 1),
        (2, 1, 5, 2),
        (2, 0, 6, 3),
        (1, 3, 4, 5),
        (2, 2, 6, 3),
    ] {
        let slice = Slice {
            axis,
            begin,
            end,
            step: step(by),
        };
        cases.push(case(slice, &[&[7, 6]], &[]));
    }
    for (axis, before, after, by) in [(1, 1, 0, 1), (2, 0, 2, 1), (2, 1, 1, 2), (1, 0, 3, 3)] {
        let pad = Pad {
            axis,
            before,
            after,
            step: step(by),
        };
        cases.push(case(pad, &[&[2, 3]], &[]));
    }
    cases
}

fn pools() -> Vec<Case> {
    let mut cases = Vec::new();
    for ceil_mode in [false, true] {
        let (kernel, strides, pads, dilations) = (vec![2, 3], vec![2, 1], vec![1, 0, 0, 2], vec![1, 2]);
        cases.push(case(
            MaxPool {
                kernel: kernel.clone(),
                strides: strides.clone(),
                pads: pads.clone(),
                dilations: dilations.clone(),
                ceil_mode,
            },
            &[&[2, 4, 5]],
            &[],
        ));
        for count_include_pad in [false, true] {
            cases.push(case(
                AveragePool {
                    kernel: kernel.clone(),
                    strides: strides.clone(),
                    pads: pads.clone(),
                    dilations: dilations.clone(),
                    ceil_mode,
                    count_include_pad,
                },
                &[&[2, 4, 5]],
                &[],
            ));
        }
    }
    cases
}

fn resizes() -> Vec<Case> {
    let mut cases = Vec::new();
    for mode in [ResizeMode::Nearest, ResizeMode::Linear] {
        // Twice the size, half pixels; 3 to 5 and 5 to 2, corners aligned; coordinates beyond both ends.
        for (output, slope, shift, divisor) in [
            ([6, 8], [1, 1], [-1, -1], [4, 4]),
            ([6, 8], [1, 1], [0, 0], [2, 2]),
            ([5, 2], [2, 3], [0, 0], [4, 1]),
            ([2, 3], [6, 8], [1, 1], [4, 6]),
            ([7, 1], [5, 0], [-9, 3], [4, 2]),
        ] {
            let resize = Resize {
                mode,
                output: output.to_vec(),
                slope: slope.to_vec(),
                shift: shift.to_vec(),
                divisor: divisor.to_vec(),
            };
            cases.push(case(resize, &[&[2, 3, 4]], &[]));
        }
        let resize = Resize {
            mode,
            output: vec![5],
            slope: vec![3],
            shift: vec![-1],
            divisor: vec![5],
        };
        cases.push(case(resize, &[&[2, 3]], &[]));
    }
    cases
}

fn losses() -> Vec<Case> {
    let cross_entropy = |sizes: &[usize]| Case {
        loss: Loss::CrossEntropy,
        ..case(Identity {}, &[sizes], &[])
    };
    vec![
        cross_entropy(&[3]),
        cross_entropy(&[3, 2, 2]),
        case(Identity {}, &[&[3, 2]], &[]),
    ]
}

fn all() -> Vec<Case> {
    [
        convolutions(),
        products(),
        norms(),
        elementwise(),
        reductions(),
        moves(),
        pools(),
        resizes(),
        losses(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

#[test]
fn gradients_are_those_of_finite_differences() {
    all().iter().for_each(check);
}

#[test]
fn every_operator_is_covered_or_has_no_derivative() {
    let mut covered = BTreeSet::new();
    for case in all() {
        covered.insert(case.op.name());
        covered.insert(match case.loss {
            Loss::CrossEntropy => "softmax_cross_entropy",
            Loss::MeanSquaredError => "mean_squared_error",
        });
    }
    let without: BTreeSet<&str> = WITHOUT_DERIVATIVE.into_iter().collect();
    let names: BTreeSet<&str> = Op::NAMES.iter().copied().collect();
    let missing: Vec<_> = names
        .iter()
        .filter(|n| !covered.contains(*n) && !without.contains(*n))
        .collect();
    assert!(missing.is_empty(), "no gradient of these is checked: {missing:?}");
    let twice: Vec<_> = covered.intersection(&without).collect();
    assert!(twice.is_empty(), "{twice:?}");
    let unknown: Vec<_> = without.difference(&names).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}

#[test]
fn backward_operators_are_all_reached() {
    let mut reached = BTreeSet::new();
    for case in all() {
        let wanted = Options {
            input_gradients: true,
            loss: case.loss,
            ..options()
        };
        let graph = after(&network(&case), &["add-loss", "differentiate"], &wanted);
        reached.extend(graph.nodes().map(|id| graph.op(id).name()));
    }
    let lowered = ["batch_norm_backward_reduce", "batch_norm_backward_data"];
    let missing: Vec<_> = Op::NAMES
        .iter()
        .filter(|n| n.contains("_backward") && !lowered.contains(n) && !reached.contains(*n))
        .collect();
    assert!(missing.is_empty(), "no case differentiates to {missing:?}");
}
