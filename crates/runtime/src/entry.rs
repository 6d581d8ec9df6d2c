//! The C `main` of a produced executable, and the binding of the model's symbols.

use std::ffi::{c_char, c_int};

use syncbn_abi::Model;

use crate::{
    error::{Error, Result},
    program::{AdamWFunction, Program, StepFunction, UpdateFunction},
    run,
};

// A model without training or without inference lacks the functions of it. Weak references leave 0 in
// the table then, which Rust's own extern items cannot express.
std::arch::global_asm!(
    ".weak syncbn_train_step",
    ".weak syncbn_update_sgd",
    ".weak syncbn_update_adamw",
    ".weak syncbn_infer_prepare",
    ".weak syncbn_infer_step",
    ".pushsection .data.rel.ro.syncbn_rt_functions, \"aw\", @progbits",
    ".balign 8",
    ".globl syncbn_rt_functions",
    ".hidden syncbn_rt_functions",
    ".type syncbn_rt_functions, @object",
    ".size syncbn_rt_functions, 40",
    "syncbn_rt_functions:",
    ".quad syncbn_train_step",
    ".quad syncbn_update_sgd",
    ".quad syncbn_update_adamw",
    ".quad syncbn_infer_prepare",
    ".quad syncbn_infer_step",
    ".popsection",
);

/// Five addresses; None where the model lacks the function.
#[repr(C)]
struct Functions {
    train_step: Option<StepFunction>,
    update_sgd: Option<UpdateFunction>,
    update_adamw: Option<AdamWFunction>,
    infer_prepare: Option<StepFunction>,
    infer_step: Option<StepFunction>,
}

unsafe extern "C" {
    static syncbn_rt_functions: Functions;
    static syncbn_model: u8;
    static syncbn_model_length: u64;
    static syncbn_data: u8;
    static syncbn_data_length: u64;
}

/// The entry point.
#[unsafe(no_mangle)]
pub extern "C" fn main(_: c_int, _: *const *const c_char) -> c_int {
    // SAFETY: nothing else runs yet. Rust's own start-up, which this `main` replaces, does the same: a write
    // to a closed pipe is an error value, not the end of the process.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    run::main(bind, std::env::args_os().collect())
}

/// The linked model.
fn bind() -> Result<Program> {
    // SAFETY: the model object defines these symbols as `syncbn_abi::symbols` says, and the linker checked
    // the ABI hash.
    let (description, data, functions) = unsafe {
        (
            std::slice::from_raw_parts(&raw const syncbn_model, syncbn_model_length as usize),
            std::slice::from_raw_parts(&raw const syncbn_data, syncbn_data_length as usize),
            &syncbn_rt_functions,
        )
    };
    let model: Model = serde_json::from_slice(description)
        .map_err(|cause| Error::internal(format!("the model's description is malformed: {cause}")))?;
    Ok(Program {
        model,
        data,
        train_step: functions.train_step,
        update_sgd: functions.update_sgd,
        update_adamw: functions.update_adamw,
        infer_prepare: functions.infer_prepare,
        infer_step: functions.infer_step,
    })
}
