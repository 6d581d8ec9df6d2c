//! Synchronised BatchNorm taken apart and summed over ranks is BatchNorm on the whole batch.

use crate::support::{array, assert_close, assert_close_to_scale, inputs, joined, named, run, samples};
use proptest::prelude::*;
use syncbn_ir::training::Generator;
use syncbn_ir::{Array, Named, OutputKind, RankInputs, RankOutputs};

const CHANNELS: usize = 2;
const RULE: &str = "epsilon = 1e-5, momentum = 0.1, running_var = pytorch";

/// BatchNorm of the whole batch, forward and backward.
const WHOLE: &str = r#"graph "whole" {
  %x = input "x" data : f64[batch, 2, 3]
  %dy = input "dy" data : f64[batch, 2, 3]
  %scale = parameter "scale" trained fill(1) : f64[2]
  %bias = parameter "bias" trained fill(0) : f64[2]
  %mean = statistic "mean" fill(0) : f64[2]
  %var = statistic "var" fill(1) : f64[2]
  %y:5 = batch_norm(%x, %scale, %bias, %mean, %var) {RULE, training = true} : f64[batch, 2, 3], f64[2], f64[2], f64[2], f64[2]
  %d:3 = batch_norm_backward(%x, %dy, %scale, %y#1, %y#2) : f64[batch, 2, 3], f64[2], f64[2]
  return
    output "y" %y,
    output "dx" %d,
    gradient "scale" %d#1,
    gradient "bias" %d#2,
    statistic "mean" %y#3,
    statistic "var" %y#4
}"#;

/// The same, taken apart. The sums of the backward pass are the gradients of bias and scale.
const APART: &str = r#"graph "apart" {
  %x = input "x" data : f64[batch, 2, 3]
  %dy = input "dy" data : f64[batch, 2, 3]
  %scale = parameter "scale" trained fill(1) : f64[2]
  %bias = parameter "bias" trained fill(0) : f64[2]
  %mean = statistic "mean" fill(0) : f64[2]
  %var = statistic "var" fill(1) : f64[2]
  %m = moments(%x) : f64[5]
  %s = all_reduce(%m) {scope = SCOPE} : f64[5]
  %f:5 = batch_norm_finalize(%s, %mean, %var) {RULE} : f64[1], f64[2], f64[2], f64[2], f64[2]
  %y = normalize(%x, %f#1, %f#2, %scale, %bias) : f64[batch, 2, 3]
  %r = batch_norm_backward_reduce(%x, %dy, %f#1, %f#2) : f64[4]
  %t = all_reduce(%r) {scope = SCOPE} : f64[4]
  %dx = batch_norm_backward_data(%x, %dy, %f#1, %f#2, %scale, %t, %f) : f64[batch, 2, 3]
  %dbias = slice(%t) {axis = 0, begin = 0, end = 2} : f64[2]
  %dscale = slice(%t) {axis = 0, begin = 2, end = 4} : f64[2]
  return
    output "y" %y,
    output "dx" %dx,
    gradient "scale" %dscale,
    gradient "bias" %dbias,
    statistic "mean" %f#3,
    statistic "var" %f#4
}"#;

struct Data {
    x: Array,
    dy: Array,
    parameters: Named,
    statistics: Named,
}

impl Data {
    /// `n` samples; the mean of each channel of the batch is `offset` times its deviation, to rounding.
    fn new(n: usize, offset: f64, seed: u64) -> Data {
        let mut random = Generator(seed);
        let mut x = random.array(&[n, CHANNELS, 3]);
        for (c, deviation) in [0.3, 7.0].into_iter().enumerate() {
            let channel = |i: usize| i / 3 % CHANNELS == c;
            let values: Vec<f64> = (0..x.len()).filter(|&i| channel(i)).map(|i| x.data[i]).collect();
            let count = values.len() as f64;
            let mean = values.iter().sum::<f64>() / count;
            let var = values.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / count;
            for i in (0..x.len()).filter(|&i| channel(i)) {
                x.data[i] = ((x.data[i] - mean) / var.sqrt() + offset) * deviation;
            }
        }
        let positive = |a: Array| Array::new(&a.dims, a.data.iter().map(|x| x.abs() + 0.1).collect());
        let vector = random.array(&[CHANNELS]);
        let dy = random.array(&x.dims);
        Data {
            parameters: named(&[("scale", &vector), ("bias", &random.array(&[CHANNELS]))]),
            statistics: named(&[
                ("mean", &random.array(&[CHANNELS])),
                ("var", &positive(random.array(&[CHANNELS]))),
            ]),
            x,
            dy,
        }
    }

    fn ranks(&self, counts: &[usize]) -> Vec<RankInputs> {
        let mut begin = 0;
        let mut ranks = Vec::new();
        for &n in counts {
            let part = |a: &Array| samples(a, begin, begin + n);
            ranks.push(inputs(&[("x", &part(&self.x)), ("dy", &part(&self.dy))]));
            begin += n;
        }
        ranks
    }

    fn run(&self, text: &str, counts: &[usize], scope: &str) -> Vec<RankOutputs> {
        let text = text.replace("RULE", RULE).replace("SCOPE", scope);
        run(&text, &self.ranks(counts), &self.parameters, &self.statistics)
    }
}

/// Compares ranks to one rank that has all their samples. The sums that ranks exchange hold the variance beside
/// the squared mean, so that rounding costs `ratio^2` times 1e-15 of it, where `ratio` is |mean| / deviation.
#[track_caller]
fn assert_same(ranks: &[RankOutputs], whole: &RankOutputs, ratio: f64) {
    let tolerance = f64::max(1e-12, ratio * ratio * 1e-15);
    for name in ["y", "dx"] {
        let part = |r: &'_ RankOutputs| r.get(OutputKind::Output, name).unwrap().clone();
        let parts: Vec<Array> = ranks.iter().map(part).collect();
        let parts: Vec<&Array> = parts.iter().collect();
        assert_close(
            &joined(&parts),
            whole.get(OutputKind::Output, name).unwrap(),
            tolerance,
        );
    }
    for kind in [OutputKind::Gradient, OutputKind::Statistic] {
        for (name, expected) in whole.of_kind(kind) {
            let first = ranks[0].get(kind, name).unwrap();
            // Gradients are sums of terms of size 1 that may cancel.
            let scale = if kind == OutputKind::Gradient { 1.0 } else { 0.0 };
            assert_close_to_scale(first, expected, tolerance, scale);
            for rank in ranks {
                assert_eq!(rank.get(kind, name), Some(first), "ranks differ in {name}");
            }
        }
    }
}

proptest! {
    #[test]
    fn any_split_gives_what_one_rank_gives(
        counts in prop::collection::vec(0usize..5, 1..6),
        offset in -100.0..100.0f64,
        seed: u64,
    ) {
        let n: usize = counts.iter().sum();
        // With fewer samples dx can vanish, and its error then has no scale.
        prop_assume!(n >= 4);
        let data = Data::new(n, offset, seed);
        let whole = data.run(WHOLE, &[n], "all").remove(0);
        assert_same(&data.run(APART, &counts, "all"), &whole, offset);
    }
}

#[test]
fn groups_are_batches_of_their_own() {
    let data = Data::new(9, 3.0, 7);
    let ranks = data.run(APART, &[3, 1, 0, 5], "group(2)");
    let parts = [(0, 4), (4, 9)].map(|(begin, end)| Data {
        x: samples(&data.x, begin, end),
        dy: samples(&data.dy, begin, end),
        parameters: data.parameters.clone(),
        statistics: data.statistics.clone(),
    });
    for (part, ranks) in parts.iter().zip(ranks.chunks(2)) {
        assert_same(ranks, &part.run(WHOLE, &[part.x.dims[0]], "all").remove(0), 10.0);
    }
}

#[test]
fn a_group_without_samples_divides_by_nothing() {
    let data = Data::new(2, 0.0, 8);
    let ranks = data.run(APART, &[0, 0, 1, 1], "group(2)");
    assert_eq!(
        ranks[0].get(OutputKind::Statistic, "mean"),
        data.statistics.get("mean")
    );
    assert_eq!(
        ranks[0].get(OutputKind::Gradient, "scale"),
        Some(&Array::zeros(&[2]))
    );
}

/// A residual and an activation inside `normalize` and its backward twins are the separate operators.
#[test]
fn activation_and_residual_can_be_fused() {
    let text = |fused: bool| {
        let tail = if fused {
            "%y = normalize(%x, %f#1, %f#2, %scale, %bias, %res) {activation = silu} : f64[batch, 2, 3]
             %r:2 = batch_norm_backward_reduce(%x, %dy, %f#1, %f#2, %scale, %bias, %res) {activation = silu}
                : f64[4], f64[batch, 2, 3]
             %t = all_reduce(%r) {scope = all} : f64[4]
             %d = batch_norm_backward_data(%x, %r#1, %f#1, %f#2, %scale, %t, %f) : f64[batch, 2, 3]
             return output \"y\" %y, output \"dx\" %d, output \"dz\" %r#1, output \"sums\" %t }"
        } else {
            "%n = normalize(%x, %f#1, %f#2, %scale, %bias) : f64[batch, 2, 3]
             %z = binary(%n, %res) {function = add} : f64[batch, 2, 3]
             %y = unary(%z) {function = silu} : f64[batch, 2, 3]
             %dz = unary_backward(%z, %dy) {function = silu} : f64[batch, 2, 3]
             %r = batch_norm_backward_reduce(%x, %dz, %f#1, %f#2) : f64[4]
             %t = all_reduce(%r) {scope = all} : f64[4]
             %dx = batch_norm_backward_data(%x, %dz, %f#1, %f#2, %scale, %t, %f) : f64[batch, 2, 3]
             return output \"y\" %y, output \"dx\" %dx, output \"dz\" %dz, output \"sums\" %t }"
        };
        let head = &APART[..APART.find("  %y =").unwrap()];
        let res = "%res = input \"res\" data : f64[batch, 2, 3]\n";
        format!("{head}{res}{tail}")
            .replace("RULE", RULE)
            .replace("SCOPE", "all")
    };
    let data = Data::new(5, 1.0, 9);
    let res = Generator(10).array(&data.x.dims);
    let ranks: Vec<RankInputs> = data
        .ranks(&[2, 3])
        .into_iter()
        .zip([(0, 2), (2, 5)])
        .map(|(mut rank, (begin, end))| {
            rank.values.insert("res".to_string(), samples(&res, begin, end));
            rank
        })
        .collect();
    let evaluate = |fused| run(&text(fused), &ranks, &data.parameters, &data.statistics);
    for (fused, separate) in evaluate(true).iter().zip(evaluate(false)) {
        for (name, expected) in separate.of_kind(OutputKind::Output) {
            assert_close(fused.get(OutputKind::Output, name).unwrap(), expected, 1e-14);
        }
    }
}

#[test]
fn a_far_mean_loses_no_digits_of_the_result() {
    // Deviation 1 around 1e4, the case of design section 2, worked out in closed form.
    let x = array(
        &[2, 2, 3],
        &[
            1e4 - 1.0,
            1e4 + 1.0,
            1e4 - 1.0,
            1e4,
            1e4,
            1e4 + 2.0,
            1e4 + 1.0,
            1e4 - 1.0,
            1e4 + 1.0,
            1e4 + 2.0,
            1e4,
            1e4 + 2.0,
        ],
    );
    let data = Data {
        dy: Array::zeros(&x.dims),
        x,
        parameters: named(&[
            ("scale", &array(&[2], &[1.0, 1.0])),
            ("bias", &array(&[2], &[0.0, 0.0])),
        ]),
        statistics: named(&[
            ("mean", &array(&[2], &[0.0; 2])),
            ("var", &array(&[2], &[1.0; 2])),
        ]),
    };
    let scale = 1.0 / (1.0f64 + 1e-5).sqrt();
    let signs = [-1.0, 1.0, -1.0, -1.0, -1.0, 1.0];
    let ranks = data.run(APART, &[1, 1], "all");
    let expected = array(&[1, 2, 3], &signs.map(|s| s * scale));
    assert_close(ranks[0].get(OutputKind::Output, "y").unwrap(), &expected, 1e-7);
    let whole = data.run(WHOLE, &[2], "all");
    let y = samples(whole[0].get(OutputKind::Output, "y").unwrap(), 0, 1);
    assert_close(&y, &expected, 1e-15);
}
