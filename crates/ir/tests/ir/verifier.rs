//! What the verifier refuses, each with its message.

use syncbn_ir::ops::{Op, ParameterData};
use syncbn_ir::{
    Arena, DType, Graph, Layout, Location, NodeId, Output, OutputKind, TensorType, Value, parse, verify,
};

const VALID: &str = r#"graph "g" {
  %0 = input "x" data : f32[batch, 4]
  %1 = parameter "scale" trained fill(1) : f32[4]
  %2 = parameter "bias" trained fill(0) : f32[4]
  %3 = statistic "mean" fill(0) : f32[4]
  %4 = statistic "var" fill(1) : f32[4]
  %5:5 = batch_norm(%0, %1, %2, %3, %4) {epsilon = 1e-5, momentum = 0.1, running_var = pytorch, training = true} : f32[batch, 4], f64[4], f64[4], f32[4], f32[4] "bn"
  %6 = unary(%5) {function = clip(0, 6)} : f32[batch, 4]
  %7 = mean_squared_error(%6, %0) : f64[1]
  %8 = dropout(%6) {ratio = 0.5} : f32[batch, 4]
  return output "y" %8, loss %7, statistic "mean" %5#3, statistic "var" %5#4, gradient "scale" %2
}"#;

/// The errors of the graph above after a change; nodes keep the numbers of the text.
fn errors(change: impl FnOnce(&mut Graph, &[NodeId])) -> Vec<String> {
    let mut graph = parse(VALID).unwrap();
    assert_eq!(verify(&graph), Ok(()));
    let ids: Vec<NodeId> = graph.nodes().collect();
    change(&mut graph, &ids);
    let errors = verify(&graph).err().unwrap_or_default();
    errors.iter().map(|e| e.to_string()).collect()
}

#[track_caller]
fn assert_error(expected: &str, change: impl FnOnce(&mut Graph, &[NodeId])) {
    assert_eq!(errors(change), [expected]);
}

fn set_type(graph: &mut Graph, id: NodeId, ty: TensorType) {
    graph.node_mut(id).outputs[0].ty = ty;
}

fn output(kind: OutputKind, name: &str, value: Value) -> Output {
    Output {
        kind,
        name: name.to_string(),
        value,
    }
}

#[test]
fn attributes_out_of_range() {
    for (epsilon, text) in [(-1.0, "-1"), (f64::NAN, "NaN"), (f64::INFINITY, "inf")] {
        let expected =
            format!("node %5 \"bn\" (batch_norm): epsilon {text} is not a finite number of at least 0");
        assert_error(&expected, |graph, ids| {
            if let Op::BatchNorm(op) = &mut graph.node_mut(ids[5]).op {
                op.epsilon = epsilon;
            }
        });
    }
    assert_error(
        "node %5 \"bn\" (batch_norm): momentum 1.5 is not in 0 to 1",
        |graph, ids| {
            if let Op::BatchNorm(op) = &mut graph.node_mut(ids[5]).op {
                op.momentum = 1.5;
            }
        },
    );
    assert_error(
        "node %6 (unary): clip bounds NaN and 6 must be numbers",
        |graph, ids| {
            if let Op::Unary(op) = &mut graph.node_mut(ids[6]).op {
                op.function = syncbn_ir::ops::UnaryFunction::Clip {
                    min: f64::NAN,
                    max: 6.0,
                };
            }
        },
    );
    assert_error("node %8 (dropout): ratio 2 is not in 0 to 1", |graph, ids| {
        if let Op::Dropout(op) = &mut graph.node_mut(ids[8]).op {
            op.ratio = 2.0;
        }
    });
    assert_error(
        "node %1 \"scale\" (parameter): fill value NaN is not finite",
        |graph, ids| {
            if let Op::Parameter(op) = &mut graph.node_mut(ids[1]).op {
                op.data = ParameterData::Fill(f64::NAN);
            }
        },
    );
}

#[test]
fn types_that_are_not_inferred() {
    assert_error(
        "node %6 (unary): result 0 has type f64[batch, 4], expected f32[batch, 4]",
        |graph, ids| {
            set_type(graph, ids[6], TensorType::batched(DType::F64, &[4]));
            // The readers of the value are set alike, so that only its own node is wrong.
            graph.outputs.remove(0);
            graph.outputs.remove(0);
            let dead = [ids[8], ids[7]];
            dead.iter().for_each(|&id| graph.remove(id).unwrap());
        },
    );
    assert_error("node %8 (dropout): has 0 results, expected 1", |graph, ids| {
        graph.outputs.remove(0);
        graph.node_mut(ids[8]).outputs.clear();
    });
    let found = errors(|graph, ids| {
        if let Op::Input(op) = &mut graph.node_mut(ids[0]).op {
            op.ty = TensorType::batched(DType::F32, &[5]);
        }
        set_type(graph, ids[0], TensorType::batched(DType::F32, &[5]));
    });
    let expected = [
        "node %5 \"bn\" (batch_norm): scale has type f32[4], expected f32[5]",
        "node %7 (mean_squared_error): the target has type f32[batch, 5], expected f32[batch, 4]",
    ];
    assert_eq!(found, expected, "all errors are reported");
}

#[test]
fn inputs_without_a_batch_and_sizes_beyond_memory() {
    let change = |ty: TensorType| {
        errors(move |graph, ids| {
            graph.outputs.clear();
            (5..9).rev().for_each(|i| graph.remove(ids[i]).unwrap());
            if let Op::Input(op) = &mut graph.node_mut(ids[0]).op {
                op.ty = ty.clone();
            }
            set_type(graph, ids[0], ty);
        })
    };
    let name = "node %0 \"x\" (input)";
    assert_eq!(
        change(TensorType::fixed(DType::F32, &[4])),
        [format!("{name}: type f32[4] does not have the batch in front")]
    );
    let mut twice = TensorType::batched(DType::F32, &[4]);
    twice.shape.0.push(syncbn_ir::Dim::Batch);
    let expected =
        format!("{name}: result 0 has type f32[batch, 4, batch]: the batch can only be the first dimension");
    assert_eq!(change(twice), [expected]);
    let large = 1 << 40;
    let expected = format!("{name}: result 0 has type f32[batch, {large}, {large}], which is too large");
    assert_eq!(
        change(TensorType::batched(DType::F32, &[large, large])),
        [expected]
    );
    let blocked = TensorType {
        layout: Layout::Filter(0),
        ..TensorType::batched(DType::F32, &[4])
    };
    let expected =
        format!("{name}: result 0 has type f32[batch, 4]:filter0, whose layout needs a channel axis");
    assert_eq!(change(blocked), [expected]);
}

#[test]
fn names_that_are_taken() {
    assert_error(
        "node %2 \"scale\" (parameter): the name \"scale\" is also that of another parameter",
        |graph, ids| {
            if let Op::Parameter(op) = &mut graph.node_mut(ids[2]).op {
                op.name = "scale".to_string();
            }
        },
    );
}

#[test]
fn outputs_that_do_not_fit_their_kind() {
    let with = |kind, name: &'static str, node: usize| {
        errors(move |graph, ids| graph.outputs.push(output(kind, name, ids[node].into())))
    };
    assert_eq!(
        with(OutputKind::Loss, "l", 6),
        ["loss \"l\": has type f32[batch, 4], expected f64[1]"]
    );
    assert_eq!(
        with(OutputKind::Gradient, "bias", 6),
        ["gradient \"bias\": has type f32[batch, 4], expected f32[4]"]
    );
    assert_eq!(with(OutputKind::Gradient, "x", 6), Vec::<String>::new());
    assert_eq!(
        with(OutputKind::Gradient, "mean", 3),
        ["gradient \"mean\": names no parameter and no input"]
    );
    assert_eq!(
        with(OutputKind::Statistic, "bias", 2),
        ["statistic \"bias\": names no running statistic"]
    );
    assert_eq!(
        with(OutputKind::Statistic, "mean", 3),
        ["statistic \"mean\": is there twice"]
    );
    let stale = errors(|graph, ids| {
        let value = Value {
            node: ids[6],
            slot: 1,
        };
        graph.outputs.push(output(OutputKind::Output, "z", value));
    });
    assert_eq!(stale, ["output \"z\": names a value that does not exist"]);
}

#[test]
fn locations_out_of_line() {
    let at = |arena, offset| {
        errors(move |graph, ids| {
            graph.node_mut(ids[6]).outputs[0].location = Some(Location { arena, offset });
        })
    };
    assert!(at(Arena::Step, 128).is_empty() && at(Arena::Inputs, 1).is_empty());
    let name = "node %6 (unary): result 0 lies at step+";
    assert_eq!(
        at(Arena::Step, 8),
        [format!("{name}8, which is not a multiple of 64")]
    );
    let far = 1u64 << 63;
    assert_eq!(at(Arena::Step, far), [format!("{name}{far}, beyond any memory")]);
}

#[test]
fn cycles() {
    let found = errors(|graph, ids| graph.set_operand(ids[6], 0, ids[8].into()).unwrap());
    assert_eq!(found, ["graph \"g\": the graph has a cycle through node \"\""]);
}

#[test]
fn layouts_are_free() {
    assert!(errors(|graph, ids| graph.node_mut(ids[6]).outputs[0].ty.layout = Layout::Nhwc).is_empty());
}
