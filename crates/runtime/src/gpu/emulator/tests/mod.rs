//! Kernels written by hand, right and wrong, on the emulated device.

mod asynchronous;
mod bounds;
mod collectives;
mod launches;
mod matrices;
mod races;
mod shared_memory;
mod warps;

use std::ffi::c_void;

use syncbn_abi::{BASE_UNKNOWN, GpuKernel, GpuParameter};

use super::EmulatedDevice;
use crate::gpu::part::EmulatedKernel;
use crate::{
    error::{Kind, Result},
    gpu::{device::Device, symbols::syncbn_rt_launch},
};

unsafe extern "C" {
    fn syncbn_emu_read_ptx_sreg_tid_x() -> i32;
    fn syncbn_emu_read_ptx_sreg_ntid_x() -> i32;
    fn syncbn_emu_read_ptx_sreg_ctaid_x() -> i32;
    fn syncbn_emu_access(
        address: *const c_void,
        place: i64,
        bytes: i64,
        alignment: i64,
        write: i64,
        base: i64,
    );
    fn syncbn_emu_barrier0(arguments: *const c_void, result: *mut c_void);
}

/// The current thread of the block.
fn thread() -> usize {
    // SAFETY: a register.
    unsafe { syncbn_emu_read_ptx_sreg_tid_x() as usize }
}

/// The current thread of a grid along x.
fn global_thread() -> usize {
    // SAFETY: registers.
    unsafe { (syncbn_emu_read_ptx_sreg_ctaid_x() * syncbn_emu_read_ptx_sreg_ntid_x()) as usize + thread() }
}

/// A load as generated code does it where it does not know what the address is based on.
unsafe fn load<T: Copy>(from: *const T) -> T {
    // SAFETY: passed on from the caller.
    unsafe { load_of(BASE_UNKNOWN, from) }
}

/// A store as generated code does it where it does not know what the address is based on.
unsafe fn store<T>(to: *mut T, value: T) {
    // SAFETY: passed on from the caller.
    unsafe { store_of(BASE_UNKNOWN, to, value) };
}

/// A load as generated code does it, from an address with this base.
unsafe fn load_of<T: Copy>(base: i64, from: *const T) -> T {
    let size = size_of::<T>() as i64;
    // SAFETY: the emulator checks the address and does not return if it is wrong.
    unsafe {
        syncbn_emu_access(from.cast(), 0, size, align_of::<T>() as i64, 0, base);
        from.read()
    }
}

/// A store as generated code does it, to an address with this base.
unsafe fn store_of<T>(base: i64, to: *mut T, value: T) {
    let size = size_of::<T>() as i64;
    // SAFETY: as in `load_of`.
    unsafe {
        syncbn_emu_access(to.cast(), 1, size, align_of::<T>() as i64, 1, base);
        to.write(value);
    }
}

fn barrier() {
    // SAFETY: it takes nothing.
    unsafe { syncbn_emu_barrier0(std::ptr::null(), std::ptr::null_mut()) };
}

/// The block's shared memory.
fn shared<T>() -> *mut T {
    (&raw const super::syncbn_emulated_shared).cast_mut().cast()
}

/// The value of a parameter.
unsafe fn parameter<T: Copy>(parameters: *const *const c_void, index: usize) -> T {
    // SAFETY: the caller knows the kernel's parameters.
    unsafe { (*parameters.add(index)).cast::<T>().read() }
}

/// Calls an intrinsic with its arguments as a C structure.
fn call<A, R: Default>(intrinsic: unsafe extern "C" fn(*const c_void, *mut c_void), arguments: A) -> R {
    let mut result = R::default();
    // SAFETY: the caller passes what the intrinsic wants.
    unsafe { intrinsic((&raw const arguments).cast(), (&raw mut result).cast()) };
    result
}

/// A kernel that reads `input` and writes `output`, both of `n` elements of 4 bytes and as much for each block.
fn kernel(cooperative: bool, block: u32, shared: u32) -> GpuKernel {
    let parameter = |written| GpuParameter {
        bytes: 0,
        bytes_per_sample: 4,
        written,
    };
    GpuKernel {
        name: "test".to_string(),
        block,
        shared,
        cooperative,
        parameters: Some(vec![parameter(false), parameter(true)]),
        numbers: 0,
        nodes: Vec::new(),
    }
}

/// Runs a kernel of `(input, output, n, total)`; the output.
fn run<T: Copy + Default>(
    kernel: GpuKernel,
    entry: EmulatedKernel,
    blocks: i64,
    input: &[T],
    seed: u64,
) -> Result<Vec<T>> {
    let device = EmulatedDevice::with_seed(vec![kernel], vec![entry], seed).unwrap();
    run_on(&device, blocks, input)
}

fn run_on<T: Copy + Default>(device: &EmulatedDevice, blocks: i64, input: &[T]) -> Result<Vec<T>> {
    let size = size_of_val(input);
    let from = device.allocate(size as u64, "the input").unwrap();
    let to = device.allocate(size as u64, "the output").unwrap();
    run_between(device, blocks, input, from, to)
}

/// As [`run`], where the output begins right behind the input.
fn run_side_by_side<T: Copy + Default>(
    kernel: GpuKernel,
    entry: EmulatedKernel,
    blocks: i64,
    input: &[T],
) -> Result<Vec<T>> {
    let device = EmulatedDevice::with_seed(vec![kernel], vec![entry], 0).unwrap();
    let size = size_of_val(input);
    let from = device.allocate(2 * size as u64, "all").unwrap();
    run_between(&device, blocks, input, from, from.wrapping_add(size))
}

/// As [`run`], with input and output at these places.
fn run_between<T: Copy + Default>(
    device: &EmulatedDevice,
    blocks: i64,
    input: &[T],
    from: *mut u8,
    to: *mut u8,
) -> Result<Vec<T>> {
    let size = size_of_val(input);
    // SAFETY: plain numbers.
    let bytes = unsafe { std::slice::from_raw_parts(input.as_ptr().cast::<u8>(), size) };
    device.upload(from, bytes).unwrap();
    let (n, total) = ((size / 4) as i32, (size / 4) as i64);
    let parameters: [*const c_void; 4] = [
        (&raw const from).cast(),
        (&raw const to).cast(),
        (&raw const n).cast(),
        (&raw const total).cast(),
    ];
    let stream = device.stream().unwrap();
    // SAFETY: the stream is the device's, and these are the parameters of the test's kernels.
    unsafe { syncbn_rt_launch(stream, 0, blocks, 1, 1, parameters.as_ptr()) };
    device.synchronize(stream)?;
    let mut output = vec![T::default(); input.len()];
    // SAFETY: plain numbers.
    let bytes = unsafe { std::slice::from_raw_parts_mut(output.as_mut_ptr().cast::<u8>(), size) };
    device.download(to, bytes)?;
    Ok(output)
}

/// Asserts that a launch fails with an error that holds all of `texts`.
fn assert_fails<T: std::fmt::Debug>(outcome: Result<T>, texts: &[&str]) {
    let error = outcome.unwrap_err();
    assert_eq!(error.kind, Kind::Internal);
    for text in texts {
        assert!(error.message.contains(text), "{error}");
    }
}
