//! Grids, bounds, alignment and direction.

use super::*;

unsafe extern "C" fn double(parameters: *const *const c_void) {
    // SAFETY: the parameters of `kernel`.
    unsafe {
        let (input, output) = (
            parameter::<*const f32>(parameters, 0),
            parameter::<*mut f32>(parameters, 1),
        );
        let index = global_thread();
        if index < parameter::<i32>(parameters, 2) as usize {
            store(output.add(index), 2.0 * load(input.add(index)));
        }
    }
}

unsafe extern "C" fn double_without_bound(parameters: *const *const c_void) {
    // SAFETY: the parameters of `kernel`.
    unsafe {
        let (input, output) = (
            parameter::<*const f32>(parameters, 0),
            parameter::<*mut f32>(parameters, 1),
        );
        store(
            output.add(global_thread()),
            2.0 * load(input.add(global_thread())),
        );
    }
}

unsafe extern "C" fn write_the_input(parameters: *const *const c_void) {
    // SAFETY: the parameters of `kernel`.
    unsafe { store(parameter::<*mut f32>(parameters, 0).add(thread()), 1.0) };
}

unsafe extern "C" fn write_misaligned(parameters: *const *const c_void) {
    // SAFETY: the parameters of `kernel`.
    unsafe { store(parameter::<*mut f32>(parameters, 1).add(1).cast::<f64>(), 1.0) };
}

#[test]
fn every_thread_of_every_block_runs_once() {
    let input: Vec<f32> = (0..1000).map(|i| i as f32).collect();
    let expected: Vec<f32> = input.iter().map(|x| 2.0 * x).collect();
    for cooperative in [false, true] {
        let output = run(kernel(cooperative, 96, 0), double, 11, &input, 0).unwrap();
        assert_eq!(output, expected);
    }
}

#[test]
fn an_empty_grid_does_nothing() {
    assert_eq!(run(kernel(false, 32, 0), double, 0, &[1.0f32], 0).unwrap(), [0.0]);
}

#[test]
fn an_access_past_a_parameter_names_kernel_block_thread_and_parameter() {
    let texts = [
        "kernel \"test\"",
        "block (2, 0, 0)",
        "thread 36",
        "reads 4 bytes",
        "parameter 0 is closest",
        "ends 4 bytes past its 400 bytes",
    ];
    for cooperative in [false, true] {
        let kernel = kernel(cooperative, 32, 0);
        let kernel = GpuKernel { block: 32, ..kernel };
        let outcome = run(kernel, double_without_bound, 4, &[0.0f32; 100], 0);
        assert_fails(
            outcome,
            &[&texts[..1], &["block (3, 0, 0)", "thread 4:"], &texts[3..]].concat(),
        );
    }
}

#[test]
fn writing_what_may_only_be_read_fails() {
    let outcome = run(kernel(false, 32, 0), write_the_input, 1, &[0.0f32; 64], 0);
    assert_fails(
        outcome,
        &["writes 4 bytes", "parameter 0", "which it may only read"],
    );
}

#[test]
fn a_misaligned_access_fails() {
    let outcome = run(kernel(false, 32, 0), write_misaligned, 1, &[0.0f32; 64], 0);
    assert_fails(outcome, &["writes 8 bytes", "not aligned to 8"]);
}

#[test]
fn parameters_must_lie_in_device_memory() {
    let mut kernel = kernel(false, 32, 0);
    kernel.parameters.as_mut().unwrap()[1].bytes = 4096;
    let outcome = run(kernel, double, 1, &[0.0f32; 64], 0);
    assert_fails(outcome, &["parameter 1", "outside the device's memory"]);
}

#[test]
fn a_kernel_without_described_parameters_may_touch_every_allocation_and_no_more() {
    let undescribed = GpuKernel {
        parameters: None,
        numbers: 0,
        nodes: Vec::new(),
        ..kernel(false, 32, 0)
    };
    let input = [3.0f32; 32];
    assert_eq!(run(undescribed.clone(), double, 1, &input, 0).unwrap(), [6.0; 32]);
    let outcome = run(undescribed, double_without_bound, 2, &input, 0);
    assert_fails(outcome, &["allocation", "thread 0", "block (1, 0, 0)"]);
}

#[test]
fn a_failed_launch_leaves_the_device_usable_and_leaks_no_stacks() {
    let device =
        EmulatedDevice::with_seed(vec![kernel(true, 256, 0)], vec![double_without_bound], 0).unwrap();
    let mappings = || {
        std::fs::read_to_string("/proc/self/maps")
            .unwrap()
            .lines()
            .count()
    };
    let mut before = None;
    for _ in 0..200 {
        assert!(run_on(&device, 1, &[0.0f32; 100]).is_err());
        before.get_or_insert_with(mappings);
    }
    assert_eq!(run_on(&device, 1, &[1.5f32; 256]).unwrap(), [3.0; 256]);
    // 200 launches of 256 threads would have left two mappings for each stack.
    assert!(mappings() < before.unwrap() + 2000);
}

#[test]
fn tables_of_different_lengths_and_impossible_blocks_are_refused() {
    assert!(EmulatedDevice::with_seed(vec![], vec![double], 0).is_err());
    assert!(EmulatedDevice::with_seed(vec![kernel(false, 2048, 0)], vec![double], 0).is_err());
    assert!(EmulatedDevice::with_seed(vec![kernel(false, 32, 1 << 20)], vec![double], 0).is_err());
}

#[test]
fn transfers_outside_device_memory_fail() {
    let device = EmulatedDevice::with_seed(vec![], vec![], 0).unwrap();
    let place = device.allocate(64, "a test").unwrap();
    assert_eq!(place as usize % 256, 0);
    assert_fails(
        device.upload(place, &[0; 65]),
        &["an upload", "ends 1 bytes past its 64 bytes"],
    );
    assert_fails(device.download(place, &mut [0; 65]), &["a download"]);
    device.upload(place, &[7; 64]).unwrap();
    let mut bytes = [0; 64];
    device.download(place, &mut bytes).unwrap();
    assert_eq!(bytes, [7; 64]);
}
