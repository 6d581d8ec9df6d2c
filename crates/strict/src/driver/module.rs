//! Modules, functions and launches.

use std::{
    ffi::{CStr, c_char, c_int, c_uint, c_void},
    sync::Arc,
};

use crate::{
    call::{Outcome, Then, call},
    export::{export, give},
    image::{self, Kernel},
    plant,
    rule::Rule,
    state::{Kind, State},
    status,
    work::Work,
};

type Handle = *mut c_void;

/// `CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES`
const SHARED_ATTRIBUTE: c_int = 8;
/// Bytes of shared memory that a block gets without being asked.
const PLAIN_SHARED: u32 = 48 << 10;
const MOST_THREADS: u32 = 1024;
const MOST_BLOCKS: [u32; 3] = [0x7fff_ffff, 0xffff, 0xffff];
/// What addresses of tensors are aligned to.
const ALIGNMENT: u64 = 16;
/// Bytes of the largest structure that kernels take by value.
const MOST_BYTES: u32 = 4096;

/// The bytes of a parameter, if its place can be read at all.
fn fetch(place: *const c_void, bytes: u32) -> Option<Vec<u8>> {
    let mut value = vec![0u8; bytes as usize];
    let own = libc::iovec {
        iov_base: value.as_mut_ptr().cast(),
        iov_len: value.len(),
    };
    let other = libc::iovec {
        iov_base: place.cast_mut(),
        iov_len: value.len(),
    };
    // SAFETY: copies from this process to the vector; a place that cannot be read is an error.
    let read = unsafe { libc::process_vm_readv(libc::getpid(), &own, 1, &other, 1, 0) };
    (read == value.len() as isize).then_some(value)
}

fn number(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .rev()
        .fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// Checks the parameters of a launch; the beginnings of the allocations that they point into.
fn parameters(state: &mut State, kernel: &Kernel, places: *const *const c_void) -> Result<Vec<u64>, String> {
    let name = &kernel.name;
    let addresses = kernel.addresses().unwrap_or(0);
    if places.is_null() {
        return Err(format!("{name}: no parameters"));
    }
    let mut values = Vec::new();
    for (i, &bytes) in kernel.parameters.iter().enumerate() {
        // SAFETY: the caller has a place for each parameter, and generated code room for more.
        let place = unsafe { *places.add(i) };
        let value = fetch(place, bytes.min(MOST_BYTES));
        let value = value.ok_or_else(|| format!("{name}: parameter {i} at {place:?} cannot be read"))?;
        values.push(value);
    }
    let mut memory = Vec::new();
    for (i, value) in values.iter().take(addresses).enumerate() {
        let address = plant::address(number(value));
        let Some(start) = state.device.find(address, 0) else {
            return Err(format!(
                "{name}: parameter {i}: {}",
                state.device.describe(address)
            ));
        };
        if !address.is_multiple_of(ALIGNMENT) {
            return Err(format!(
                "{name}: parameter {i}: {address:#x} is not aligned to {ALIGNMENT}"
            ));
        }
        memory.push(start);
    }
    if let [n, total, ..] = &values[addresses..] {
        let (n, total) = (number(n), number(total));
        if n > total || total > u64::from(u32::MAX) {
            return Err(format!("{name}: {n} of {total} samples"));
        }
    }
    memory.dedup();
    Ok(memory)
}

/// Checks the sizes of a launch.
fn sizes(state: &mut State, kernel: &Kernel, grid: [u32; 3], block: u32, shared: (u32, u32)) {
    let name = &kernel.name;
    if grid
        .iter()
        .zip(MOST_BLOCKS)
        .any(|(blocks, most)| *blocks == 0 || *blocks > most)
    {
        state.violation(Rule::Grid, &format!("{name}: a grid of {grid:?}"));
    }
    let most = kernel.threads.unwrap_or(MOST_THREADS).min(MOST_THREADS);
    if block == 0 || block > most {
        state.violation(Rule::Block, &format!("{name}: {block} threads, at most {most}"));
    }
    let (dynamic, allowed) = shared;
    let without = kernel.shared + dynamic;
    if without > PLAIN_SHARED.max(allowed + kernel.shared) || without > crate::MOST_SHARED {
        let text = format!("{name}: {without} bytes of shared memory, {allowed} were asked for");
        state.violation(Rule::SharedMemory, &text);
    }
}

/// The function named `name` of a module.
fn function(state: &mut State, module: Handle, name: *const c_char, function: *mut Handle) -> Outcome {
    let module = state.find(Kind::Module, module)?;
    if name.is_null() {
        return state.refuse(Rule::Argument, "no name", status::INVALID_VALUE);
    }
    // SAFETY: a C string.
    let name = unsafe { CStr::from_ptr(name) }.to_string_lossy();
    let kernels = state.modules.get(&module).map_or(&[][..], Vec::as_slice);
    let Some(kernel) = kernels.iter().find(|kernel| *kernel.name == *name).cloned() else {
        return state.refuse(Rule::NoKernel, &name, status::NOT_FOUND);
    };
    if kernel.addresses().is_none() {
        state.violation(
            Rule::Parameters,
            &format!("{name} has parameters of {:?} bytes", kernel.parameters),
        );
    }
    let handle = state.handle(Kind::Function);
    state.functions.insert(handle, (module, kernel, 0));
    give(state, function, handle as Handle).map(|()| Then::Return)
}

export! {
    /// Loads device code.
    fn cuModuleLoadDataEx(
        module: *mut Handle,
        image: *const c_void,
        count: c_uint,
        options: *mut c_int,
        values: *mut *mut c_void,
    ) {
        let image = if plant::is("image") { c"no code".as_ptr().cast() } else { image };
        call("cuModuleLoadDataEx", |state| {
            if count > 0 && (options.is_null() || values.is_null()) {
                state.violation(Rule::Argument, "options without values");
            }
            // SAFETY: the caller says that an image lies there.
            let mut kernels = match unsafe { image::read(image.cast(), crate::CAPABILITY) } {
                Ok(kernels) => kernels,
                Err(text) => return state.refuse(Rule::Image, &text, status::INVALID_IMAGE),
            };
            if plant::is("parameter-count") {
                kernels.iter_mut().for_each(|kernel| kernel.parameters.insert(0, 8));
            }
            let handle = state.handle(Kind::Module);
            state.log.line(&format!("MODULE kernels={}", kernels.len()));
            state.modules.insert(handle, kernels);
            give(state, module, handle as Handle).map(|()| Then::Return)
        })
    }

    /// Unloads device code; its functions end.
    fn cuModuleUnload(module: Handle) {
        call("cuModuleUnload", |state| {
            let module = state.find(Kind::Module, module)?;
            state.end_handle(module);
            let functions = state.functions.iter().filter(|(_, (of, _, _))| *of == module);
            let functions: Vec<u64> = functions.map(|(handle, _)| *handle).collect();
            functions.into_iter().for_each(|function| state.end_handle(function));
            Ok(Then::Return)
        })
    }

    /// A kernel by name.
    fn cuModuleGetFunction(to: *mut Handle, module: Handle, name: *const c_char) {
        call("cuModuleGetFunction", |state| function(state, module, name, to))
    }

    /// Allows a kernel more shared memory.
    fn cuFuncSetAttribute(function: Handle, attribute: c_int, value: c_int) {
        if plant::is("shared-memory") {
            return status::SUCCESS;
        }
        call("cuFuncSetAttribute", |state| {
            let function = state.find(Kind::Function, function)?;
            let Some((_, kernel, allowed)) = state.functions.get_mut(&function) else {
                return Err(status::INVALID_HANDLE);
            };
            let most = crate::MOST_SHARED - kernel.shared;
            match u32::try_from(value) {
                Ok(value) if attribute == SHARED_ATTRIBUTE && value <= most => *allowed = value,
                _ => {
                    let text = format!("attribute {attribute} of {} cannot be {value}", kernel.name);
                    return state.refuse(Rule::SharedMemory, &text, status::INVALID_VALUE);
                }
            }
            Ok(Then::Return)
        })
    }

    /// Launches a kernel.
    fn cuLaunchKernel(
        function: Handle,
        x: c_uint,
        y: c_uint,
        z: c_uint,
        block_x: c_uint,
        block_y: c_uint,
        block_z: c_uint,
        shared: c_uint,
        stream: Handle,
        places: *const *const c_void,
        extra: *const *const c_void,
    ) {
        plant::before_launch(stream);
        let (y, block_x) = plant::sizes(y, block_x);
        call("cuLaunchKernel", |state| {
            let function = state.find(Kind::Function, function)?;
            let stream = state.find(Kind::Stream, stream)?;
            let Some((_, kernel, allowed)) = state.functions.get(&function).cloned() else {
                return Err(status::INVALID_HANDLE);
            };
            let before = state.log.violations;
            let block = block_x.saturating_mul(block_y).saturating_mul(block_z);
            sizes(state, &kernel, [x, y, z], block, (shared, allowed));
            if !extra.is_null() {
                state.violation(Rule::Argument, "parameters in two forms");
            }
            let memory = match parameters(state, &kernel, places) {
                Ok(memory) => memory,
                Err(text) => return state.refuse(Rule::Parameters, &text, status::INVALID_VALUE),
            };
            if state.log.violations > before {
                return Err(status::INVALID_VALUE);
            }
            let (name, memory) = (Arc::clone(&kernel.name), memory.into());
            state.enqueue_checked(stream, Work::Kernel { name, memory }).map(|()| Then::Return)
        })
    }
}
