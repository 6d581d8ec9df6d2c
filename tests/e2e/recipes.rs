//! Files that PyTorch exported as the README says, and as it warns against.

use crate::corpus::output;
use crate::support::compare::Comparison;
use crate::support::executable::compiled;
use crate::support::files::{Column, read_npz, write_npz};
use crate::support::fixture;
use crate::support::run::compile;

#[test]
fn the_exports_of_the_readme_keep_their_batch_norms() {
    let references = read_npz(&fixture("recipes/references.npz"));
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data.npz");
    let x = &references["x"];
    let target = syncbn_ir::Array::zeros(&[x.dims[0]]);
    write_npz(&data, &[("x", Column::F32(x)), ("target", Column::I64(&target))]);
    let mut all = Comparison::default();
    for name in ["dynamo", "legacy"] {
        for (precision, tolerance) in [("f32", 2e-5), ("f64", 1e-9)] {
            let onnx = fixture(&format!("recipes/{name}.onnx"));
            let executable = compiled(name, &onnx, &["--precision", precision]);
            assert_eq!(executable.info()["batch_norms"].as_array().unwrap().len(), 7);
            let before = executable.infer(&data, &[]);
            let title = |what: &str| format!("{name} {precision} {what}");
            all.array(
                &title("eval_before"),
                Some(output(&before)),
                &references["eval_before"],
                tolerance,
            );
            for split in ["6", "4,2", "2,2,1,1"] {
                let run = executable.train(&data, &["--steps", "1", "--rank-batches", split]);
                let reference = &references["train_logits"];
                all.array(&title(split), Some(output(&run.outputs)), reference, tolerance);
            }
        }
    }
    all.finish("recipes");
}

#[test]
fn a_file_without_its_batch_norms_is_warned_of_with_the_recipe() {
    let folder = tempfile::tempdir().unwrap();
    let model = fixture("recipes/folded.onnx");
    compile(folder.path(), &[model.to_str().unwrap(), "-o", "out.bin"])
        .ok()
        .says(&[
            "warning:",
            "BatchNorm",
            "torch.onnx.export",
            "optimize=False",
            "model.eval()",
        ]);
}
