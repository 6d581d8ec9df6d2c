//! ONNX files to graphs.
//!
//! [`import`] reads a file, checks it and gives a [`syncbn_ir::Graph`]: data inputs whose first dimension is
//! the batch, parameters and running statistics under their initializer names, and the operators in the
//! graph's terms. Integer shape arithmetic is evaluated with the batch as a symbol; float subgraphs of
//! constants stay in the graph for the passes. Nothing in a file is trusted: every size is checked before
//! anything of that size is allocated, and no file makes the importer panic.

mod add_inputs;
mod add_outputs;
mod attributes;
mod binding;
mod checks;
mod classify;
mod error;
mod external;
mod functions;
mod importer;
mod initializers;
mod inputs;
mod integers;
mod load;
mod names;
mod operands;
mod ops;
mod options;
mod primitive_batch_norm;
pub mod proto;
mod tensors;
mod weight_inputs;
mod weights;

use std::path::Path;

use syncbn_ir::{DType, Graph, Warning};

pub use error::{ErrorKind, ImportError, ImportErrors};
pub use load::{MAX_OPSET, MIN_OPSET};
pub use options::ImportOptions;

/// What an ONNX file became.
#[derive(Debug, Clone)]
pub struct Imported {
    /// The network in inference form: every `batch_norm` has `training = false`. Outputs carry their ONNX
    /// names.
    pub graph: Graph,
    /// What the user should know, in the order found.
    pub warnings: Vec<Warning>,
    /// Remarks without consequence, such as a conversion that was asked for.
    pub notes: Vec<String>,
    /// Element type of the graph's floating-point values.
    pub dtype: DType,
    /// Element type of the file.
    pub file_dtype: DType,
    /// Version of the standard operator set.
    pub opset: i64,
    /// The batch that the file was exported with, when it was fixed.
    pub fixed_batch: Option<usize>,
    /// Data inputs: name and sizes after the batch, in file order.
    pub inputs: Vec<(String, Vec<usize>)>,
    /// Parameters and running statistics, in order of first use.
    pub tensors: Vec<ImportedTensor>,
    /// Outputs whose final Softmax or LogSoftmax was left out: they hold logits.
    pub softmax_outputs: Vec<String>,
    /// Number of BatchNorm layers.
    pub batch_norms: usize,
}

/// A parameter or running statistic of an imported network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportedTensor {
    /// Name of the initializer, or of the Identity output that copies it into a BatchNorm slot.
    pub name: String,
    /// Sizes.
    pub shape: Vec<usize>,
    /// What becomes of it in training.
    pub class: TensorClass,
}

/// What becomes of a tensor in training.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TensorClass {
    /// Changed by the optimiser.
    Trained,
    /// Never changed.
    Constant,
    /// A running mean or variance, changed by training steps.
    Statistic,
}

/// Imports the file at `path`; external data is looked for in its folder.
pub fn import(path: &Path, options: &ImportOptions) -> Result<Imported, ImportErrors> {
    let bytes = load::read(path)?;
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty());
    import_bytes(&bytes, Some(folder.unwrap_or(Path::new("."))), options)
}

/// Imports the bytes of a file. `folder` is where external data lies; without it a file that has external
/// data is refused.
pub fn import_bytes(
    bytes: &[u8],
    folder: Option<&Path>,
    options: &ImportOptions,
) -> Result<Imported, ImportErrors> {
    importer::run(load::decode(bytes)?, folder, options)
}
