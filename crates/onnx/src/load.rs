//! Reading and decoding a file, and the checks on the model as a whole.

use std::path::Path;

use prost::Message;

use crate::error::ImportError;
use crate::proto::ModelProto;

/// Lowest version of the standard operator set.
pub const MIN_OPSET: i64 = 7;
/// Highest version of the standard operator set: that of the schema's release, 1.23.
pub const MAX_OPSET: i64 = 28;
/// Highest IR version of the schema's release.
const MAX_IR_VERSION: i64 = 14;

/// Reads a file.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, ImportError> {
    std::fs::read(path).map_err(|e| ImportError::user(format!("cannot read {}: {e}", path.display())))
}

/// Decodes a model.
pub(crate) fn decode(bytes: &[u8]) -> Result<ModelProto, ImportError> {
    if bytes.is_empty() {
        return Err(ImportError::user("the file is empty"));
    }
    ModelProto::decode(bytes).map_err(|e| {
        let text = e.to_string();
        let cause = text.rsplit(": ").next().unwrap_or_default();
        if cause.contains("recursion") {
            let text =
                format!("cannot decode the file as an ONNX model: {cause}, its graphs are nested too deeply");
            return ImportError::user(text).note("subgraphs of control flow (If, Loop) are not supported");
        }
        ImportError::user(format!("cannot decode the file as an ONNX model: {text}"))
            .note("the file is truncated, damaged or not ONNX: export or copy it again")
    })
}

/// Whether a node's domain is that of the standard operators.
pub(crate) fn is_standard(domain: &str) -> bool {
    domain.is_empty() || domain == "ai.onnx"
}

/// Version of the standard operator set.
pub(crate) fn opset(model: &ModelProto) -> Result<i64, ImportError> {
    let mut versions = model.opset_import.iter().filter(|o| is_standard(o.domain()));
    let version = versions
        .next()
        .ok_or_else(|| ImportError::user("the file names no opset version of the standard operators"))?
        .version();
    if version < MIN_OPSET {
        return Err(ImportError::unsupported(format!(
            "the file uses opset {version}; opsets {MIN_OPSET} to {MAX_OPSET} are supported"
        ))
        .note("export with opset_version=20, or convert with onnx.version_converter"));
    }
    if version > MAX_OPSET {
        return Err(ImportError::unsupported(format!(
            "the file uses opset {version}, which is newer than this compiler; opsets {MIN_OPSET} to \
             {MAX_OPSET} are supported"
        ))
        .note("export with opset_version=20"));
    }
    Ok(version)
}

/// What is odd about the model as a whole: (message, note).
pub(crate) fn oddities(model: &ModelProto) -> Vec<(String, Option<String>)> {
    let mut list = Vec::new();
    let version = model.ir_version();
    if !(3..=MAX_IR_VERSION).contains(&version) {
        list.push((
            format!("IR version {version} of the file is unknown; 3 to {MAX_IR_VERSION} are known"),
            None,
        ));
    }
    if !model.training_info.is_empty() {
        list.push((
            "training_info of the file is ignored".to_string(),
            Some("the executable trains with its own optimiser and loss".to_string()),
        ));
    }
    list
}
