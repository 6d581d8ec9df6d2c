//! Warnings about a network that imports and is likely not what the user means.

use syncbn_ir::ops::BinaryFunction;
use syncbn_ir::{Dim, Graph, NodeId, Op, Value, Warning};

use crate::binding::Binding;
use crate::error::ImportError;
use crate::importer::Importer;
use crate::inputs::{Declared, declared};
use crate::options::ImportOptions;
use crate::proto::{GraphProto, ValueInfoProto};

/// How to export from PyTorch so that BatchNorm is kept.
const EXPORT_RECIPE: &str = "torch.onnx.export folds BatchNorm away by default; to keep it: model.eval(); \
    torch.onnx.export(model, (x,), \"m.onnx\", dynamo=True, optimize=False, opset_version=20, \
    input_names=[\"x\"], output_names=[\"logits\"], external_data=False, \
    dynamic_shapes=({0: torch.export.Dim(\"batch\", min=1)},))";

/// All BatchNorm nodes.
pub(crate) fn batch_norms(graph: &Graph) -> Vec<NodeId> {
    graph
        .nodes()
        .filter(|&id| matches!(graph.op(id), Op::BatchNorm(_)))
        .collect()
}

/// Adds the warnings.
pub(crate) fn check(
    importer: &mut Importer,
    file: &GraphProto,
    options: &ImportOptions,
) -> Result<(), ImportError> {
    let data = importer
        .graph
        .depends_on_data()
        .map_err(|e| ImportError::user(e.to_string()))?;
    let layers = batch_norms(&importer.graph);
    let of_data: Vec<NodeId> = layers.into_iter().filter(|id| data.contains(id)).collect();
    folded_away(importer, file, of_data.len());
    constant_weights(importer);
    single_values(importer, &of_data);
    frozen_statistics(importer, &of_data);
    declared_shapes(importer, file, options);
    unused_initializers(importer, file);
    Ok(())
}

/// Warns when BatchNorm is missing or looks folded into convolutions.
fn folded_away(importer: &mut Importer, file: &GraphProto, batch_norms: usize) {
    let names: Vec<&str> = file.initializer.iter().map(|t| t.name()).collect();
    let folded: Vec<&str> = names
        .into_iter()
        .filter(|n| {
            n.starts_with("onnx::Conv_") || n.ends_with(if batch_norms > 0 { "weight_bias" } else { "_bias" })
        })
        .filter(|n| importer.names.is_used(n))
        .collect();
    let affine = per_channel_affine(&importer.graph);
    if batch_norms > 0 {
        if !folded.is_empty() {
            let text = format!(
                "some BatchNormalization may have been folded into convolutions: the file has initializers \
                 named {}",
                folded.iter().take(3).copied().collect::<Vec<_>>().join(", ")
            );
            importer.warnings.push(Warning::new(text).help(EXPORT_RECIPE));
        }
        return;
    }
    let mut text = "the network has no BatchNormalization: there is nothing to synchronise".to_string();
    if !folded.is_empty() {
        text += "; initializer names show that it was folded into convolutions";
    }
    if let Some(name) = affine {
        text += &format!("; node \"{name}\" scales each channel as a frozen or folded BatchNorm does");
    }
    importer.warnings.push(Warning::new(text).help(EXPORT_RECIPE));
}

/// A multiplication of a convolution's result by one number a channel, followed by an addition.
fn per_channel_affine(graph: &Graph) -> Option<String> {
    let binary = |id: NodeId, function: BinaryFunction| {
        let matches = matches!(graph.op(id), Op::Binary(b) if b.function == function);
        let vector = graph
            .operands(id)
            .iter()
            .any(|v| matches!(graph.op(v.node), Op::Parameter(_)));
        matches && vector
    };
    let scales = graph.nodes().find(|&id| {
        let after_conv = graph
            .operands(id)
            .iter()
            .any(|v| matches!(graph.op(v.node), Op::Conv(_)));
        let shifted = graph
            .users(id.into())
            .iter()
            .any(|(user, _)| binary(*user, BinaryFunction::Add));
        after_conv && shifted && binary(id, BinaryFunction::Mul)
    })?;
    Some(graph.node(scales).name.clone())
}

/// Warns about layers whose weights are constants of the graph, which are never trained.
fn constant_weights(importer: &mut Importer) {
    let graph = &importer.graph;
    let constant = |id: &NodeId| {
        let weights = match graph.op(*id) {
            Op::Conv(_) | Op::MatMul(_) => graph.operand(*id, 1),
            _ => None,
        };
        weights.is_some_and(|w| matches!(graph.op(w.node), Op::Constant(_)))
    };
    let names: Vec<String> = graph
        .nodes()
        .filter(constant)
        .map(|id| format!("\"{}\"", graph.node(id).name))
        .collect();
    if !names.is_empty() {
        let text = format!(
            "weights that are Constant nodes are not trained: those of {}",
            names.join(", ")
        );
        importer
            .warnings
            .push(Warning::new(text).help("export weights as initializers"));
    }
}

/// Warns about layers that had one value per channel when the file was exported.
fn single_values(importer: &mut Importer, layers: &[NodeId]) {
    if importer.fixed_batch != Some(1) {
        return;
    }
    let mut warnings = Vec::new();
    for &id in layers {
        let ty = importer.graph.ty(Value::from(id));
        let positions: usize = ty.shape.0.iter().skip(2).filter_map(|d| d.fixed()).product();
        if positions == 1 {
            let text = "with one sample each channel has one value; training needs more than 1 value per channel \
                        over all ranks";
            let name = &importer.graph.node(id).name;
            warnings.push(
                Warning::new(text)
                    .at(format!("node \"{name}\" (BatchNormalization)"))
                    .help("train with a larger batch or on more ranks"),
            );
        }
    }
    importer.warnings.extend(warnings);
}

/// Warns about running statistics that never change or forget at once.
fn frozen_statistics(importer: &mut Importer, layers: &[NodeId]) {
    for effect in ["never change", "are those of the last batch"] {
        let share = if effect == "never change" { 0.0 } else { 1.0 };
        let odd = |id: &&NodeId| matches!(importer.graph.op(**id), Op::BatchNorm(b) if b.momentum == share);
        let names: Vec<String> = layers
            .iter()
            .filter(odd)
            .map(|&id| format!("\"{}\"", importer.graph.node(id).name))
            .collect();
        if !names.is_empty() {
            let text = format!(
                "BatchNormalization with momentum {}, so that running statistics {effect}: {}",
                1.0 - share,
                names.join(", ")
            );
            let help = "PyTorch exports momentum=None (a cumulative average) so; set a number";
            importer.warnings.push(Warning::new(text).help(help));
        }
    }
}

/// Warns where a declared shape differs from the inferred one, unless `--input-shape` makes them differ.
fn declared_shapes(importer: &mut Importer, file: &GraphProto, options: &ImportOptions) {
    if !options.input_shapes.is_empty() {
        return;
    }
    let infos = file.value_info.iter().map(|i| ("value_info", i));
    let mut texts = Vec::new();
    for (kind, info) in infos.chain(file.output.iter().map(|i| ("output", i))) {
        let Some(Binding::Value(value)) = importer.bindings.get(info.name()) else {
            continue;
        };
        let Some(ty) = importer.graph.try_type(*value) else {
            continue;
        };
        if contradicts(info, &ty.shape.0, importer.fixed_batch) {
            let (name, shape) = (info.name(), &ty.shape);
            texts.push((
                format!("{kind} \"{name}\""),
                format!("says another shape than the node computes, {shape}"),
            ));
        }
    }
    if let Some((place, first)) = texts.first() {
        let text = match texts.len() {
            1 => format!("{first}; it is ignored"),
            n => format!("{first}; it is ignored, and so are {} more", n - 1),
        };
        let warning = Warning::new(text).at(place.clone());
        importer
            .warnings
            .push(warning.help("export again, or give --input-shape where the sizes are meant to differ"));
    }
}

fn contradicts(info: &ValueInfoProto, inferred: &[Dim], batch: Option<usize>) -> bool {
    let dims = match declared(info) {
        Ok(Some((_, Some(dims)))) => dims,
        Ok(_) => return false,
        Err(_) => return true,
    };
    if dims.len() != inferred.len() {
        return true;
    }
    dims.iter()
        .zip(inferred)
        .any(|(declared, dim)| match (declared, dim) {
            (Declared::Symbol(_), _) => false,
            (Declared::Size(n), Dim::Fixed(m)) => n != m,
            (Declared::Size(n), Dim::Batch) => batch != Some(*n),
        })
}

fn unused_initializers(importer: &mut Importer, file: &GraphProto) {
    let names = file.initializer.iter().map(|t| t.name());
    let unused: Vec<&str> = names.filter(|n| !importer.names.is_used(n)).collect();
    if let Some(first) = unused.first() {
        let text = match unused.len() {
            1 => "no node uses it".to_string(),
            n => format!("no node uses it, nor {} more", n - 1),
        };
        importer
            .warnings
            .push(Warning::new(text).at(format!("initializer \"{first}\"")));
    }
}
