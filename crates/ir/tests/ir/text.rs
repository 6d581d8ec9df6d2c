//! The text form: round trips, and errors with their places.

use std::sync::Arc;

use crate::networks::random;
use proptest::prelude::*;
use syncbn_ir::ops::{Parameter, ParameterData};
use syncbn_ir::text::fnv1a;
use syncbn_ir::training::Generator;
use syncbn_ir::{DType, Graph, Literal, parse, print, verify};

const TEXT: &str = r#"graph "small \"net\"" {
  %0 = input "x" data : f32[batch, 3, 8, 8]
  %1 = parameter "conv.weight" trained kaiming_normal(27) : f32[8, 3, 3, 3]:filter16
  %2 = parameter "bn.weight" trained fill(1) : f32[8]
  %3 = parameter "bn.bias" frozen [0.0, -0.0, 1.5, inf, -inf, nan, 1e-5, 3.4028235e38] : f32[8]
  %4 = statistic "bn.running_mean" elided(00ff00ff00ff00ff) : f32[8] @statistics+64
  %5 = statistic "bn.running_var" fill(0.1) : f32[8]
  %6 = constant [1, -9223372036854775808] : i64[2]
  %7 = constant splat(0.5) : f32[1000, 3]
  %8 = conv(%0, %1) {strides = [1, 1], pads = [1, 1, 1, 1], dilations = [1, 1], groups = 1, activation = clip(0, 6.5), schedule = direct(lanes = 16, pixels = 8, vectors = 2, rows = 1)} : f32[batch, 8, 8, 8]:nhwc @step+4096 workspace @step+65536 "stem.conv"
  %9:5 = batch_norm(%8, %2, %3, %4, %5) {epsilon = 1e-5, momentum = 0.1, running_var = pytorch, training = true, onnx_training = true} : f32[batch, 8, 8, 8]:nhwc, f64[8], f64[8], f32[8], f32[8]
  %10:2 = max_pool(%9) {kernel = [2, 2], strides = [2, 2], pads = [0, 0, 0, 0], dilations = [1, 1]} : f32[batch, 8, 4, 4], u8[batch, 8, 4, 4] "pool"
  return
    output "y" %10,
    statistic "bn.running_mean" %9#3
}
"#;

#[test]
fn printing_a_parsed_graph_gives_the_same_text() {
    let graph = parse(TEXT).unwrap();
    assert_eq!(print(&graph), TEXT);
}

#[test]
fn names_comments_and_blanks_are_free() {
    let text = "graph \"g\" { // a comment\n%x = input \"x\" target:i64[batch] %y.1=identity(%x):i64[batch] return }";
    let expected = "graph \"g\" {\n  %0 = input \"x\" target : i64[batch]\n  %1 = identity(%0) : i64[batch]\n  return\n}\n";
    assert_eq!(print(&parse(text).unwrap()), expected);
}

/// The message and place of the error that a text gives.
#[track_caller]
fn assert_error(line: &str, column: usize, message: &str) {
    let text = format!("graph \"g\" {{\n%x = input \"x\" data : f32[batch, 2, 4]\n{line}\nreturn\n}}");
    let error = parse(&text).unwrap_err();
    assert_eq!(
        (error.line, error.column, error.message.as_str()),
        (3, column, message)
    );
}

#[test]
fn errors_have_a_place_and_a_reason() {
    let ty = "f32[batch, 2, 4]";
    assert_error(
        "%y = identity(%z) : f32[1]",
        15,
        "%z is not defined above this line",
    );
    assert_error(&format!("%x = identity(%x) : {ty}"), 1, "%x is defined twice");
    assert_error("%y = identify(%x) : f32[1]", 6, "unknown operator `identify`");
    assert_error(
        "%y = identity(%x) : f32[1]",
        6,
        "result 0 has type f32[batch, 2, 4], not f32[1] as written",
    );
    assert_error(
        &format!("%y:2 = identity(%x) : {ty}"),
        8,
        "expected 2 result types, found 1",
    );
    assert_error(
        &format!("%y = identity(%x#1) : {ty}"),
        15,
        "%x has 1 results, so no result #1",
    );
    assert_error(
        &format!("%y = identity() : {ty}"),
        6,
        "expected 1 operands, found 0",
    );
    assert_error(
        &format!("%y = unary(%x) : {ty}"),
        6,
        "attribute function is missing",
    );
    assert_error(
        &format!("%y = identity(%x) {{a = 1}} : {ty}"),
        6,
        "identity has no attribute a",
    );
    assert_error(
        &format!("%y = unary(%x) {{function = cosh}} : {ty}"),
        6,
        "attribute function has the wrong kind",
    );
    assert_error("%y = identity(%x) : f16[2]", 21, "unknown element type `f16`");
    assert_error(
        "%y = identity(%x) : f32[2, batch]",
        21,
        "the batch can only be the first dimension",
    );
    assert_error(
        "%y = constant [1.0, 2.0] : f32[3]",
        15,
        "f32[3] has 3 values, found 2",
    );
    assert_error("%y = constant [1.5] : i64[1]", 15, "`1.5` is not of type i64");
    assert_error(
        "%y = constant splat(1) : u8[99999999]",
        15,
        "a splat of type u8[99999999] is too large",
    );
    assert_error(
        "%y = constant splat(1) : f32[99999999999, 99999999999]",
        26,
        "a tensor of type f32[99999999999, 99999999999] is too large",
    );
    assert_error(
        "%y = parameter \"p\" trained elided(12) : f32[1]",
        35,
        "expected a hash of 16 hexadecimal digits",
    );
    assert_error(
        &format!("%y = identity(%x) : {ty} @heap+0"),
        39,
        "unknown arena `heap`",
    );
    assert_error("%y = identity(%x) \"label", 19, "a string has no end");
}

#[test]
fn large_parameters_print_as_a_hash_that_stays() {
    let values = |n: usize| Literal::from_f64(DType::F32, &[n], &vec![0.5; n]);
    let mut graph = Graph::new("g");
    for n in [8, 9] {
        let op = Parameter {
            name: format!("p{n}"),
            trained: true,
            ty: values(n).ty(),
            data: ParameterData::Values(Arc::new(values(n))),
        };
        graph.add(op, "", &[]).unwrap();
    }
    let text = print(&graph);
    let expected = "graph \"g\" {
  %0 = parameter \"p8\" trained [0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5] : f32[8]
  %1 = parameter \"p9\" trained elided(15670aeedc047158) : f32[9]
  return
}
";
    assert_eq!(text, expected);
    assert_eq!(print(&parse(&text).unwrap()), text);
}

#[test]
fn a_cyclic_graph_prints_all_the_same() {
    let mut graph = parse(TEXT).unwrap();
    let ids: Vec<_> = graph.nodes().collect();
    graph
        .add(syncbn_ir::ops::Identity {}, "a", &[ids[0].into()])
        .unwrap();
    let a = graph.nodes().last().unwrap();
    graph.set_operand(a, 0, a.into()).unwrap();
    assert!(print(&graph).contains("%11 = identity(%11)"));
}

#[test]
fn fnv1a_is_the_published_function() {
    assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
    assert_eq!(fnv1a(b"a"), 0xaf63_dc4c_8601_ec8c);
    assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
}

/// One small damage to a text.
fn damage(text: &str, random: &mut Generator) -> String {
    const PIECES: &[&str] = &[
        "9223372036854775807",
        "18446744073709551616",
        "-1",
        "0",
        "batch",
        "[",
        "]",
        "(",
        ")",
        "{",
        "}",
        "\"",
        "%1",
        "%9#4",
        "#",
        "nan",
        "inf",
        "f64",
        "true",
        ",",
        ":",
        "@step+64",
        "//",
        "\\u{",
        "\n",
        "é",
        "=",
        "group(0)",
        "999999999",
        "conv",
        "dense<f32[2]>[1, 2]",
        "filter0",
        "1e999",
    ];
    let mut chars: Vec<char> = text.chars().collect();
    let pick = |random: &mut Generator, n: usize| (random.bits() % n.max(1) as u64) as usize;
    let begin = pick(random, chars.len());
    let end = (begin + pick(random, 12)).min(chars.len());
    let piece: Vec<char> = match random.bits() % 4 {
        0 => Vec::new(),
        1 => {
            let other = pick(random, chars.len());
            chars[other..(other + 20).min(chars.len())].to_vec()
        }
        _ => PIECES[pick(random, PIECES.len())].chars().collect(),
    };
    let keep = if random.bits().is_multiple_of(2) {
        begin
    } else {
        end
    };
    chars.splice(begin..keep, piece);
    chars.into_iter().collect()
}

proptest! {
    #[test]
    fn random_networks_make_the_round_trip(seed: u64) {
        let graph = random(seed);
        let text = print(&graph);
        let parsed = parse(&text).unwrap();
        prop_assert_eq!(&print(&parsed), &text);
        prop_assert_eq!(parsed.len(), graph.len());
    }

    #[test]
    fn no_damage_makes_the_parser_panic(seed: u64, count in 1usize..4) {
        let mut numbers = Generator(seed);
        let mut text = if seed.is_multiple_of(2) { TEXT.to_string() } else { print(&random(seed)) };
        for _ in 0..count {
            text = damage(&text, &mut numbers);
        }
        if let Ok(graph) = parse(&text) {
            let _ = verify(&graph);
            let printed = print(&graph);
            let again = parse(&printed);
            prop_assert!(again.is_ok(), "{:?} in {}", again.err(), printed);
            prop_assert_eq!(again.map(|g| print(&g)), Ok(printed));
        }
    }
}
