//! Forms of supported operators that are refused, by name and attribute.

use crate::common::import_model;
use crate::common::model::{With, floats, longs, model, node};
use syncbn_onnx::ErrorKind;
use syncbn_onnx::proto::{NodeProto, TensorProto};

/// The message for one node over `x [batch, 2, 4, 4]`, which must be `unsupported`.
fn refusal(node: NodeProto, initializers: Vec<TensorProto>) -> String {
    let errors = import_model(&model(20, &[0, 2, 4, 4], initializers, vec![node])).unwrap_err();
    assert_eq!(errors.kind(), ErrorKind::Unsupported, "{errors}");
    errors.to_string()
}

fn scales(values: [f32; 4]) -> Vec<TensorProto> {
    vec![floats("scales", &[4], &values)]
}

fn resize() -> NodeProto {
    let mut node = node("Resize", "x", "y");
    node.input = ["x", "", "scales"].map(str::to_string).to_vec();
    node
}

#[test]
fn resize_names_the_attribute() {
    let twice = || scales([1.0, 1.0, 2.0, 2.0]);
    let cubic = refusal(resize().text("mode", "cubic"), twice());
    assert!(cubic.contains("Resize (opset 20) with mode cubic"), "{cubic}");
    let crop = resize().text("coordinate_transformation_mode", "tf_crop_and_resize");
    let crop = refusal(crop, twice());
    assert!(
        crop.contains("coordinate_transformation_mode tf_crop_and_resize"),
        "{crop}"
    );
    let shrunk = resize().text("mode", "linear").int("antialias", 1);
    let shrunk = refusal(shrunk, scales([1.0, 1.0, 0.5, 0.5]));
    assert!(shrunk.contains("antialias 1"), "{shrunk}");
    let channels = refusal(resize(), scales([1.0, 2.0, 1.0, 1.0]));
    assert!(channels.contains("a change of batch or channels"), "{channels}");
}

#[test]
fn slices_backwards_and_of_the_batch() {
    let bounds = |begin, end, axis, step| {
        vec![
            longs("begin", &[1], &[begin]),
            longs("end", &[1], &[end]),
            longs("axis", &[1], &[axis]),
            longs("step", &[1], &[step]),
        ]
    };
    let slice = || node("Slice", "x begin end axis step", "y");
    let backwards = refusal(slice(), bounds(-1, -9, 2, -1));
    assert!(
        backwards.contains("Slice (opset 20) with a step of -1"),
        "{backwards}"
    );
    let batch = refusal(slice(), bounds(0, 2, 0, 1));
    assert!(batch.contains("Slice (opset 20) of the batch axis"), "{batch}");
}

#[test]
fn padding_with_something_else_than_zero() {
    let pads = || longs("pads", &[8], &[0, 0, 1, 1, 0, 0, 1, 1]);
    let reflect = refusal(node("Pad", "x pads", "y").text("mode", "reflect"), vec![pads()]);
    assert!(reflect.contains("Pad (opset 20) with mode reflect"), "{reflect}");
    let one = vec![pads(), floats("one", &[], &[1.0])];
    let one = refusal(node("Pad", "x pads one", "y"), one);
    assert!(one.contains("Pad (opset 20) with another value than 0"), "{one}");
}
