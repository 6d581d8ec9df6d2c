//! The interpreter: shapes, state, errors and training steps.

use crate::networks::random;
use crate::support::{array, assert_close, inputs, named};
use proptest::prelude::*;
use syncbn_ir::training::Generator;
use syncbn_ir::{
    AdamW, EvalError, Output, OutputKind, RankInputs, Sgd, State, Value, evaluate, initial_state, parse,
    train_step,
};

proptest! {
    #[test]
    fn every_value_has_the_shape_of_its_type(seed: u64, counts in prop::collection::vec(0usize..4, 1..3)) {
        let mut graph = random(seed);
        graph.outputs.clear();
        for id in graph.nodes().collect::<Vec<_>>() {
            for slot in 0..graph.node(id).outputs.len() {
                let (name, value) = (format!("{} {slot}", id.number()), Value { node: id, slot });
                graph.outputs.push(Output { kind: OutputKind::Output, name, value });
            }
        }
        let mut numbers = Generator(seed);
        let ranks: Vec<RankInputs> =
            counts.iter().map(|&n| inputs(&[("x", &numbers.array(&[n, 3, 7, 6]))])).collect();
        let outputs = evaluate(&graph, &ranks, &initial_state(&graph, seed).unwrap()).unwrap();
        for (rank, n) in outputs.iter().zip(&counts) {
            for output in &graph.outputs {
                let array = rank.get(OutputKind::Output, &output.name).unwrap();
                prop_assert_eq!(&array.dims, &graph.ty(output.value).shape.sizes(*n));
                prop_assert!(array.data.iter().all(|x| x.is_finite()));
            }
        }
    }
}

/// Least squares with one weight: loss `mean((w x - t)^2)`.
const LEAST_SQUARES: &str = r#"graph "least squares" {
  %x = input "x" data : f64[batch, 1]
  %t = input "target" target : f64[batch, 1]
  %w = parameter "w" trained fill(2) : f64[1, 1]
  %count = statistic "seen" fill(0) : f64[1]
  %y = matmul(%x, %w) {transpose_b = true} : f64[batch, 1]
  %l = mean_squared_error(%y, %t) : f64[1]
  %dy = mean_squared_error_backward(%y, %t) : f64[batch, 1]
  %dw = matmul(%dy, %x) {transpose_a = true} : f64[1, 1]
  %sums:2 = all_reduce(%dw, %l) {scope = all} : f64[1, 1], f64[1]
  %sum = reduce(%x) {function = sum, axes = [0]} : f64[1]
  %seen = binary(%count, %sum) {function = add} : f64[1]
  return loss %sums#1, gradient "w" %sums, statistic "seen" %seen
}"#;

fn ranks() -> Vec<RankInputs> {
    let rank = |x: &[f64], t: &[f64]| {
        let dims = [x.len(), 1];
        inputs(&[("x", &array(&dims, x)), ("target", &array(&dims, t))])
    };
    vec![
        rank(&[1.0, 2.0], &[1.0, 0.0]),
        rank(&[], &[]),
        rank(&[-1.0], &[0.0]),
    ]
}

#[test]
fn training_steps_descend_and_keep_statistics_apart() {
    let graph = parse(LEAST_SQUARES).unwrap();
    let mut state = initial_state(&graph, 0).unwrap();
    let sgd = Sgd {
        learning_rate: 0.1,
        momentum: 0.5,
        weight_decay: 0.25,
        nesterov: false,
    };
    // The loss is ((w-1)^2 + 4w^2 + w^2) / 3 and its gradient 4w - 2/3.
    let (mut w, mut velocity): (f64, Option<f64>) = (2.0, None);
    for _ in 0..3 {
        let outputs = train_step(&graph, &ranks(), &mut state, &sgd).unwrap();
        let loss = ((w - 1.0).powi(2) + 5.0 * w * w) / 3.0;
        let d = 4.0 * w - 2.0 / 3.0 + 0.25 * w;
        let v = velocity.map_or(d, |v| 0.5 * v + d);
        (w, velocity) = (w - 0.1 * v, Some(v));
        for rank in &outputs {
            assert_close(
                rank.get(OutputKind::Loss, "").unwrap(),
                &array(&[1], &[loss]),
                1e-14,
            );
        }
        assert_close(&state.parameters["w"], &array(&[1, 1], &[w]), 1e-14);
    }
    let seen: Vec<f64> = state.statistics.iter().map(|s| s["seen"].data[0]).collect();
    assert_eq!(seen, [9.0, 0.0, -3.0]);
}

#[test]
fn nesterov_looks_ahead() {
    let graph = parse(LEAST_SQUARES).unwrap();
    let mut state = initial_state(&graph, 0).unwrap();
    let sgd = Sgd {
        learning_rate: 0.1,
        momentum: 0.5,
        weight_decay: 0.0,
        nesterov: true,
    };
    train_step(&graph, &ranks(), &mut state, &sgd).unwrap();
    let gradient = 8.0 - 2.0 / 3.0;
    assert_close(
        &state.parameters["w"],
        &array(&[1, 1], &[2.0 - 0.1 * 1.5 * gradient]),
        1e-15,
    );
}

#[test]
fn adamw_divides_corrected_means() {
    let graph = parse(LEAST_SQUARES).unwrap();
    let mut state = initial_state(&graph, 0).unwrap();
    let (learning_rate, beta1, beta2, epsilon, weight_decay) = (0.1, 0.5_f64, 0.75_f64, 1e-3, 0.25);
    let adamw = AdamW {
        learning_rate,
        beta1,
        beta2,
        epsilon,
        weight_decay,
    };
    // The gradient is 4w - 2/3. The means are written as weighted sums of all gradients so far.
    let (mut w, mut gradients): (f64, Vec<f64>) = (2.0, Vec::new());
    for t in 1..=3 {
        train_step(&graph, &ranks(), &mut state, &adamw).unwrap();
        gradients.push(4.0 * w - 2.0 / 3.0);
        let mean = |beta: f64, power: i32| {
            let ages = (0..t).rev();
            let terms = gradients
                .iter()
                .zip(ages)
                .map(|(g, age)| beta.powi(age) * g.powi(power));
            terms.sum::<f64>() * (1.0 - beta) / (1.0 - beta.powi(t))
        };
        let step = mean(beta1, 1) / (mean(beta2, 2).sqrt() + epsilon);
        w -= learning_rate * (step + weight_decay * w);
        assert_close(&state.parameters["w"], &array(&[1, 1], &[w]), 1e-14);
    }
    assert_eq!(state.steps, 3);
}

#[test]
fn what_is_missing_or_misshapen_is_named() {
    let graph = parse(LEAST_SQUARES).unwrap();
    let state = initial_state(&graph, 0).unwrap();
    let message =
        |ranks: &[RankInputs], state: &State| evaluate(&graph, ranks, state).unwrap_err().to_string();
    let mut without_target = ranks();
    without_target[2].values.remove("target");
    assert_eq!(message(&without_target, &state), "input \"target\" was not given");
    let mut misshapen = ranks();
    misshapen[0].n = 3;
    assert_eq!(
        message(&misshapen, &state),
        "\"x\" has shape [2, 1], expected [3, 1]"
    );
    let nothing = State::default();
    assert!(message(&ranks(), &nothing).contains("was not given"));
    let two = State {
        statistics: vec![named(&[]); 2],
        ..state
    };
    assert_eq!(message(&ranks(), &two), "statistics of 2 ranks were given to 3");
}

#[test]
fn groups_must_divide_the_ranks() {
    let graph = parse(&LEAST_SQUARES.replace("scope = all", "scope = group(2)")).unwrap();
    let error = evaluate(&graph, &ranks(), &initial_state(&graph, 0).unwrap()).unwrap_err();
    assert!(matches!(error, EvalError::Ranks(_)), "{error}");
}

#[test]
fn elided_values_cannot_start_a_network() {
    let text = LEAST_SQUARES.replace("fill(2)", "elided(0123456789abcdef)");
    assert!(initial_state(&parse(&text).unwrap(), 0).is_err());
}
