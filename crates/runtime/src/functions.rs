//! The functions of a part: whether those that training or inference needs are there.

use syncbn_abi::Model;

use crate::error::{Error, Result};

/// The functions that training needs, or an error that says how to get them.
pub fn training<Step, Sgd, AdamW>(
    model: &Model,
    functions: (Option<Step>, Option<Sgd>, Option<AdamW>),
) -> Result<(Step, Sgd, AdamW)> {
    match (model.train, functions) {
        (true, (Some(step), Some(sgd), Some(adamw))) => Ok((step, sgd, adamw)),
        (true, _) => Err(Error::internal(
            "the training functions are missing from the executable",
        )),
        _ => Err(
            Error::unsupported("this executable was compiled without training")
                .help("compile the model again with `syncbn-compile --mode both`"),
        ),
    }
}

/// The functions that inference needs, or an error that says how to get them.
pub fn inference<Step>(model: &Model, functions: (Option<Step>, Option<Step>)) -> Result<(Step, Step)> {
    match (model.infer, functions) {
        (true, (Some(prepare), Some(step))) => Ok((prepare, step)),
        (true, _) => Err(Error::internal(
            "the inference functions are missing from the executable",
        )),
        _ => Err(
            Error::unsupported("this executable was compiled without inference")
                .help("compile the model again with `syncbn-compile --mode both`"),
        ),
    }
}
