//! Initialisation, errors, devices, contexts.

use std::ffi::{c_char, c_int, c_uint, c_void};

use crate::{
    call::{CURRENT, Then, call},
    export::{export, give},
    plant,
    rule::Rule,
    state::{Kind, State},
    status,
};

type Handle = *mut c_void;

/// Of CUDA 13.0.
const VERSION: c_int = 13_000;
const NAME: &[u8] = b"Strict GPU\0";
/// Attribute and value: major and minor compute capability, most shared memory of a block.
const ATTRIBUTES: [(c_int, c_int); 3] = [
    (75, (crate::CAPABILITY / 10) as c_int),
    (76, (crate::CAPABILITY % 10) as c_int),
    (97, crate::MOST_SHARED as c_int),
];

fn check_device(state: &mut State, device: c_int) -> Result<(), c_int> {
    if (0..state.settings.gpus).contains(&device) {
        return Ok(());
    }
    state.refuse(
        Rule::Argument,
        &format!("there is no device {device}"),
        status::INVALID_DEVICE,
    )
}

export! {
    /// Initialises.
    fn cuInit(flags: c_uint) {
        if plant::is("uninitialised") {
            return status::SUCCESS;
        }
        call("cuInit", |state| {
            if flags != 0 {
                state.violation(Rule::Argument, "flags are 0");
            }
            state.initialised = true;
            Ok(Then::Return)
        })
    }

    /// The driver's version.
    fn cuDriverGetVersion(version: *mut c_int) {
        call("cuDriverGetVersion", |state| give(state, version, VERSION).map(|()| Then::Return))
    }

    /// Name of a status.
    fn cuGetErrorName(error: c_int, name: *mut *const c_char) {
        call("cuGetErrorName", |state| give(state, name, status::name(error).as_ptr()).map(|()| Then::Return))
    }

    /// Explanation of a status.
    fn cuGetErrorString(_error: c_int, text: *mut *const c_char) {
        call("cuGetErrorString", |state| {
            give(state, text, c"said by the strict stand-in".as_ptr()).map(|()| Then::Return)
        })
    }

    /// Number of devices.
    fn cuDeviceGetCount(count: *mut c_int) {
        call("cuDeviceGetCount", |state| {
            let gpus = state.settings.gpus;
            give(state, count, gpus).map(|()| Then::Return)
        })
    }

    /// A device by number.
    fn cuDeviceGet(device: *mut c_int, number: c_int) {
        call("cuDeviceGet", |state| {
            check_device(state, number)?;
            give(state, device, number).map(|()| Then::Return)
        })
    }

    /// A device's name.
    fn cuDeviceGetName(name: *mut c_char, length: c_int, device: c_int) {
        call("cuDeviceGetName", |state| {
            check_device(state, device)?;
            if name.is_null() || (length as usize) < NAME.len() {
                return state.refuse(Rule::Argument, "no room for the name", status::INVALID_VALUE);
            }
            // SAFETY: there is room for the name.
            unsafe { std::ptr::copy_nonoverlapping(NAME.as_ptr().cast(), name, NAME.len()) };
            Ok(Then::Return)
        })
    }

    /// An attribute of a device.
    fn cuDeviceGetAttribute(value: *mut c_int, attribute: c_int, device: c_int) {
        call("cuDeviceGetAttribute", |state| {
            check_device(state, device)?;
            match ATTRIBUTES.iter().find(|(known, _)| *known == attribute) {
                Some((_, known)) => give(state, value, *known).map(|()| Then::Return),
                None => state.refuse(Rule::Argument, &format!("attribute {attribute}"), status::INVALID_VALUE),
            }
        })
    }

    /// Retains a device's primary context.
    fn cuDevicePrimaryCtxRetain(context: *mut Handle, device: c_int) {
        call("cuDevicePrimaryCtxRetain", |state| {
            check_device(state, device)?;
            state.log.is_rank();
            let found = state.contexts.iter().find(|(_, (of, _))| *of == device).map(|(handle, _)| *handle);
            let handle = match found {
                Some(handle) => handle,
                None => state.handle(Kind::Context),
            };
            state.contexts.entry(handle).or_insert((device, 0)).1 += 1;
            give(state, context, handle as Handle).map(|()| Then::Return)
        })
    }

    /// Releases a device's primary context; the last time, all that was made in it must have ended.
    fn cuDevicePrimaryCtxRelease_v2(device: c_int) {
        call("cuDevicePrimaryCtxRelease_v2", |state| {
            let Some((&handle, _)) = state.contexts.iter().find(|(_, (of, _))| *of == device) else {
                return state.refuse(Rule::DoubleFree, "the context is not retained", status::INVALID_CONTEXT);
            };
            if let Some((_, count)) = state.contexts.get_mut(&handle) {
                *count -= 1;
                if *count == 0 {
                    state.find_leaks();
                    state.contexts.remove(&handle);
                    state.end_handle(handle);
                }
            }
            Ok(Then::Return)
        })
    }

    /// Makes a context that of the calling thread.
    fn cuCtxSetCurrent(context: Handle) {
        call("cuCtxSetCurrent", |state| {
            let handle = if context.is_null() { 0 } else { state.find(Kind::Context, context)? };
            CURRENT.set(handle);
            Ok(Then::Return)
        })
    }

    /// Waits for all work.
    fn cuCtxSynchronize() {
        call("cuCtxSynchronize", |_| Ok(Then::Wait(Box::new(|state| state.finish_all().then_some(status::SUCCESS)))))
    }
}
