//! Which calls the driver and NCCL get, in which order and with which arguments, on a fake of both.

pub(in crate::gpu) mod fake;

use std::{ffi::c_void, path::Path};

use self::fake::Fake;
use super::{driver::Driver, survey_of};
use crate::{
    error::Kind,
    gpu::{
        device::Device,
        symbols::{ncclAllReduce, ncclGroupEnd, ncclGroupStart, syncbn_rt_launch, syncbn_rt_stream_wait},
    },
};

/// Launches a kernel whose first parameter is 7.
fn launch(stream: *mut c_void, kernel: i64, grid: [i64; 3]) {
    let n = 7i32;
    let parameters = [(&raw const n).cast::<c_void>()];
    // SAFETY: a stream of the test's device.
    unsafe { syncbn_rt_launch(stream, kernel, grid[0], grid[1], grid[2], parameters.as_ptr()) };
}

#[test]
fn a_missing_driver_is_an_error_of_the_environment() {
    let error = Driver::open(Path::new("libcuda.so.does-not-exist"))
        .err()
        .unwrap();
    assert_eq!(error.kind, Kind::Environment);
    assert_eq!(
        error.message,
        "no NVIDIA driver: libcuda.so.does-not-exist could not be opened"
    );
}

#[test]
fn unusable_drivers_say_why() {
    let fake = Fake::new();
    fake.set(11080, 1);
    let error = fake.driver().err().unwrap();
    assert_eq!(
        error.message,
        format!(
            "the NVIDIA driver is too old: {} is for CUDA 11.8",
            fake.path.display()
        )
    );
    assert!(error.notes[0].contains("SYNCBN_CUDA_LIBRARY"), "{error}");
    assert_eq!(error.kind, Kind::Environment);
    fake.set(12000, 0);
    let error = fake.driver().unwrap().devices().unwrap_err();
    assert_eq!(
        error.message,
        "there is an NVIDIA driver but no GPU that it can use"
    );
    fake.fail("cuInit", 100);
    let error = fake.driver().err().unwrap();
    assert_eq!(
        error.message,
        "there is an NVIDIA driver but no GPU that it can use"
    );
    fake.fail("cuInit", 803);
    let error = fake.driver().err().unwrap();
    assert!(error.to_string().contains("reboot"), "{error}");
}

#[test]
fn an_nccl_that_is_too_old_says_so() {
    let fake = Fake::new();
    fake.set_nccl(2803);
    let error = fake.device().err().unwrap();
    assert_eq!(error.kind, Kind::Environment);
    assert_eq!(
        error.message,
        format!("NCCL is too old: {} is 2.8.3", fake.path.display())
    );
    for words in ["install NCCL 2.11.0 or later", "SYNCBN_NCCL_LIBRARY"] {
        assert!(error.notes[0].contains(words), "{error}");
    }
}

/// What is found of the driver and its GPUs, as `info --device --json` writes it.
fn surveyed(fake: &Fake) -> serde_json::Value {
    let images = b"{\"images\":[{\"kind\":\"ptx\",\"compute_capability\":80,\"bytes\":4}]}\nCODE";
    let found = survey_of(Driver::located(&fake.path).unwrap(), &Ok(images));
    serde_json::to_value(found.map_err(|error| error.message)).unwrap()
}

#[test]
fn a_driver_without_a_usable_gpu_is_found_all_the_same() {
    let fake = Fake::new();
    fake.set(12040, 0);
    let no_gpu = "there is an NVIDIA driver but no GPU that it can use";
    for (name, status, words) in [
        ("", 0, no_gpu),
        ("cuInit", 100, no_gpu),
        ("cuInit", 803, "cuInit: CUDA_ERROR_X"),
    ] {
        fake.fail(name, status);
        let found = surveyed(&fake);
        assert_eq!(found["Ok"][0]["version"], "CUDA 12.4", "{found}");
        assert_eq!(found["Ok"][0]["file"], fake.path.display().to_string());
        let why = found["Ok"][1]["missing"].as_str().unwrap();
        assert!(why.starts_with(words), "{why}");
    }
}

#[test]
fn a_gpu_that_tells_nothing_leaves_the_others_as_they_are() {
    let fake = Fake::new();
    fake.fail("cuDeviceGetName", 999);
    let found = surveyed(&fake);
    let gpus = &found["Ok"][1]["found"];
    assert_eq!(gpus[0]["missing"], "cuDeviceGetName: CUDA_ERROR_X: explanation");
    assert_eq!(gpus[1]["found"]["name"], "Fake GPU 101");
    assert_eq!(gpus[1]["found"]["code"]["found"], "ptx for sm_80");
}

#[test]
fn opening_loads_the_code_once_and_asks_for_large_shared_memory() {
    let fake = Fake::new();
    let device = fake.device().unwrap();
    assert_eq!(device.name(), "Fake GPU 101");
    let calls = fake.calls();
    for expected in [
        "cuInit 0\n",
        "cuDeviceGet 1\n",
        "cuCtxSetCurrent 1\n",
        " image CODE\n",
        "cuModuleGetFunction -> 3\n name first\n",
        "cuFuncSetAttribute 4 8 65536\n",
    ] {
        assert_eq!(calls.matches(expected).count(), 1, "{expected} in {calls}");
    }
    assert_eq!(calls.matches("cuFuncSetAttribute").count(), 1);
}

#[test]
fn code_that_does_not_load_gives_the_compilers_log() {
    let fake = Fake::new();
    fake.fail("cuModuleLoadDataEx", 218);
    let error = fake.device().err().unwrap();
    let text = error.to_string();
    assert!(
        text.contains("cuModuleLoadDataEx: CUDA_ERROR_X: explanation"),
        "{text}"
    );
    assert!(
        text.contains("loading ptx for compute capability 80 on Fake GPU 101"),
        "{text}"
    );
    assert!(text.contains("ptxas fatal: line 7"), "{text}");
}

#[test]
fn memory_is_zeroed_and_copies_go_both_ways_in_chunks() {
    let fake = Fake::new();
    let device = fake.device().unwrap();
    let size = 20 << 20;
    let place = device.allocate(size as u64, "a test").unwrap();
    let mut bytes = vec![1; size];
    device.download(place, &mut bytes).unwrap();
    assert!(bytes.iter().all(|&byte| byte == 0));
    let pattern: Vec<u8> = (0..size).map(|i| (i / 1000) as u8).collect();
    fake.calls();
    device.upload(place, &pattern).unwrap();
    let calls = fake.calls();
    assert_eq!(calls.matches("cuMemcpyHtoDAsync").count(), 3, "{calls}");
    assert!(
        calls.ends_with(&format!("cuStreamSynchronize {}\n", transfer_stream(&calls))),
        "{calls}"
    );
    device.download(place, &mut bytes).unwrap();
    assert!(fake.calls().starts_with("cuCtxSynchronize\n"));
    assert!(bytes == pattern);
    let error = device.upload(place, &vec![0; size + 1]).unwrap_err();
    assert!(error.message.contains("an upload"), "{error}");
}

fn transfer_stream(calls: &str) -> &str {
    calls
        .lines()
        .find_map(|line| line.split_once("stream "))
        .unwrap()
        .1
}

#[test]
fn memory_that_is_not_there_is_named() {
    let fake = Fake::new();
    let device = fake.device().unwrap();
    fake.fail("cuMemAlloc", 2);
    let error = device.allocate(1000, "the step arena").unwrap_err();
    assert_eq!(error.kind, Kind::Environment);
    assert_eq!(
        error.message,
        "cannot get 1000 bytes of memory of Fake GPU 101 for the step arena"
    );
}

#[test]
fn launches_have_the_kernels_block_and_shared_memory() {
    let fake = Fake::new();
    let device = fake.device().unwrap();
    let stream = device.stream().unwrap();
    fake.calls();
    launch(stream, 1, [5, 4, 3]);
    launch(stream, 0, [0, 1, 1]);
    let calls = fake.calls();
    assert!(
        calls.starts_with("cuLaunchKernel 4 grid 5 4 3 block 96 1 1 shared 65536 stream"),
        "{calls}"
    );
    assert!(
        calls.ends_with("first 7 extra 0\n") && calls.lines().count() == 1,
        "{calls}"
    );
    device.synchronize(stream).unwrap();
}

#[test]
fn the_first_failure_of_a_stream_is_kept_until_the_runtime_waits() {
    let fake = Fake::new();
    let device = fake.device().unwrap();
    let stream = device.stream().unwrap();
    fake.fail("cuLaunchKernel", 700);
    launch(stream, 0, [1, 1, 1]);
    launch(stream, 9, [1, 1, 1]);
    let error = device.synchronize(stream).unwrap_err();
    assert_eq!(error.kind, Kind::Internal);
    assert_eq!(
        error.message,
        "cuLaunchKernel of kernel \"first\" of node \"conv1\": CUDA_ERROR_ILLEGAL_ADDRESS: explanation"
    );
    device.synchronize(stream).unwrap();
    launch(stream, 9, [1, 1, 1]);
    let error = device.synchronize(stream).unwrap_err();
    assert_eq!(error.message, "the model has no kernel 9");
    assert!(device.synchronize(std::ptr::null_mut()).is_err());
}

#[test]
fn streams_wait_for_each_other_by_events() {
    let fake = Fake::new();
    let device = fake.device().unwrap();
    let streams = [device.stream().unwrap(), device.stream().unwrap()];
    fake.calls();
    // SAFETY: streams of one device.
    unsafe {
        syncbn_rt_stream_wait(streams[0], streams[1]);
        syncbn_rt_stream_wait(streams[0], streams[0]);
    }
    let calls = fake.calls();
    let lines: Vec<&str> = calls.lines().collect();
    assert_eq!(lines.len(), 2, "{calls}");
    let event = lines[0].split(' ').nth(1).unwrap();
    assert!(lines[0].starts_with("cuEventRecord"));
    assert!(lines[1].starts_with("cuStreamWaitEvent") && lines[1].ends_with(&format!("event {event} 0")));
    assert_ne!(lines[0].split(' ').nth(3), lines[1].split(' ').nth(1));
}

#[test]
fn graphs_are_captured_replayed_and_destroyed() {
    let fake = Fake::new();
    let device = fake.device().unwrap();
    let stream = device.stream().unwrap();
    fake.calls();
    let mut enqueue = || {
        launch(stream, 0, [2, 1, 1]);
        Ok(())
    };
    let graph = device.capture(stream, &mut enqueue).unwrap();
    graph.replay().unwrap();
    graph.replay().unwrap();
    drop(graph);
    let calls = fake.calls();
    let names: Vec<&str> = calls
        .lines()
        .map(|line| line.split(' ').next().unwrap())
        .collect();
    assert_eq!(
        names,
        [
            "cuStreamBeginCapture",
            "cuLaunchKernel",
            "cuStreamEndCapture",
            "cuGraphInstantiate",
            "cuGraphDestroy",
            "cuGraphLaunch",
            "cuGraphLaunch",
            "cuGraphExecDestroy"
        ]
    );
    assert!(calls.contains("mode 1\n"), "{calls}");
    fake.fail("cuLaunchKernel", 1);
    let mut enqueue = || {
        launch(stream, 0, [2, 1, 1]);
        Ok(())
    };
    let error = device.capture(stream, &mut enqueue).err().unwrap();
    assert!(
        error
            .message
            .contains("cuLaunchKernel of kernel \"first\" of node \"conv1\""),
        "{error}"
    );
    let calls = fake.calls();
    assert!(
        calls.contains("cuStreamEndCapture") && calls.contains("cuGraphDestroy"),
        "{calls}"
    );
    assert!(!calls.contains("cuGraphInstantiate"), "{calls}");
}

#[test]
fn a_capture_has_the_streams_that_wait_and_are_waited_for() {
    let fake = Fake::new();
    let device = fake.device().unwrap();
    let (first, second) = (device.stream().unwrap(), device.stream().unwrap());
    let capture = |waits: &[(*mut c_void, *mut c_void)]| {
        let mut enqueue = || {
            for &(waiting, signalling) in waits {
                device.wait(waiting, signalling)?;
                launch(waiting, 0, [1, 1, 1]);
            }
            Ok(())
        };
        device.capture(first, &mut enqueue).map(drop)
    };
    capture(&[(second, first), (first, second)]).unwrap();
    for waits in [&[(first, second)][..], &[(second, first)]] {
        assert!(capture(waits).is_err());
        // What could not be captured leaves the streams as they were.
        capture(&[]).unwrap();
        device.synchronize(first).unwrap();
    }
    let mut enqueue = || device.synchronize(first);
    assert!(device.capture(first, &mut enqueue).is_err());
}

#[test]
fn copies_in_the_order_of_a_stream_take_pinned_memory_only() {
    let fake = Fake::new();
    let device = fake.device().unwrap();
    let stream = device.stream().unwrap();
    let there = device.allocate(64, "a test").unwrap();
    let here = device.pinned(64, "a test").unwrap();
    let mut elsewhere = [0u8; 64];
    fake.calls();
    // SAFETY: the fake copies at once.
    unsafe {
        here.write(7);
        device.copy_in(stream, there, here, 64).unwrap();
        device.copy_out(stream, there, here.add(32), 32).unwrap();
        assert_eq!(here.add(32).read(), 7);
        assert!(device.copy_in(stream, there, here.add(1), 64).is_err());
        assert!(device.copy_in(stream, there.add(1), here, 64).is_err());
        assert!(device.copy_in(stream, there, elsewhere.as_ptr(), 64).is_err());
        assert!(
            device
                .copy_out(stream, there, elsewhere.as_mut_ptr(), 64)
                .is_err()
        );
    }
    let calls = fake.calls();
    assert_eq!(calls.lines().count(), 2, "{calls}");
    assert!(!calls.contains("Synchronize"), "{calls}");
}

#[test]
fn collectives_go_to_nccl_with_the_stream() {
    let fake = Fake::new();
    let device = fake.device().unwrap();
    let stream = device.stream().unwrap();
    let id = device.unique_id().unwrap();
    fake.calls();
    let communicator = device.communicator(&id, 1, &[4, 5]).unwrap();
    assert!(fake.calls().contains(" as 1 of 2, id uu\n"));
    let mut data = [0f64; 5];
    let data = data.as_mut_ptr().cast::<c_void>();
    // SAFETY: stream and communicator are the device's; the fake does not touch the data.
    let status = unsafe { ncclAllReduce(data, data, 5, 8, 0, communicator, stream) };
    assert_eq!(status, 0);
    assert_eq!(device.collectives(), 1);
    assert!(fake.calls().starts_with("ncclAllReduce 5 8 0 communicator"));
    device.synchronize(stream).unwrap();
    let calls = fake.calls();
    assert!(
        calls.starts_with("cuStreamQuery") && calls.contains("cuStreamSynchronize"),
        "{calls}"
    );
    assert!(device.communicator(b"short", 0, &[0]).is_err());
}

#[test]
fn a_communicator_that_does_not_block_is_asked_until_it_is_done() {
    let fake = Fake::new();
    let device = fake.device().unwrap();
    let stream = device.stream().unwrap();
    fake.unblock(3, 0);
    let communicator = device.communicator(&[0; 128], 0, &[4, 5]).unwrap();
    let asked = |calls: &str| calls.matches("ncclCommGetAsyncError").count();
    assert_eq!(asked(&fake.calls()), 3);
    let mut data = [0f64; 5];
    let data = data.as_mut_ptr().cast::<c_void>();
    // SAFETY: stream and communicator are the device's; the fake does not touch the data.
    let reduce = || unsafe { ncclAllReduce(data, data, 5, 8, 0, communicator, stream) };
    assert_eq!(reduce(), 0);
    assert_eq!(asked(&fake.calls()), 3);
    // In a group the end waits.
    ncclGroupStart();
    assert_eq!((reduce(), reduce()), (0, 0));
    assert_eq!(asked(&fake.calls()), 0);
    assert_eq!(ncclGroupEnd(), 0);
    assert!(asked(&fake.calls()) >= 3);
    fake.unblock(2, 6);
    assert_ne!(reduce(), 0);
    let error = device.synchronize(stream).unwrap_err();
    assert_eq!(error.kind, Kind::RankDied);
    let error = device.communicator(&[0; 128], 0, &[4, 5]).unwrap_err();
    assert!(error.message.starts_with("ncclCommInitRank: remote"), "{error}");
    assert!(fake.calls().contains("ncclCommAbort"));
}

#[test]
fn a_dead_rank_ends_the_wait_and_communicators_are_aborted_once() {
    let fake = Fake::new();
    let device = fake.device().unwrap();
    let stream = device.stream().unwrap();
    let communicator = device.communicator(&[0; 128], 0, &[4, 5]);
    assert!(communicator.is_ok());
    assert_eq!(device.collectives(), 0);
    fake.hang(6);
    let error = device.synchronize(stream).unwrap_err();
    assert_eq!(error.kind, Kind::RankDied);
    assert!(error.to_string().contains("remote process exited"), "{error}");
    assert!(error.to_string().contains("[4, 5]"), "{error}");
    let abort = device.aborter();
    std::thread::spawn(abort).join().unwrap();
    // Nobody asks for what has ended.
    let calls = fake.calls();
    assert_eq!(calls.matches("ncclCommGetAsyncError").count(), 1);
    assert_eq!(calls.matches("ncclCommAbort").count(), 1);
    fake.hang(0);
    let error = device.synchronize(stream).unwrap_err();
    assert_eq!(error.kind, Kind::RankDied);
    assert_eq!(error.message, "the communicator was aborted");
    drop(device);
    let calls = fake.calls();
    for never in ["ncclCommGetAsyncError", "ncclCommAbort", "ncclCommDestroy"] {
        assert_eq!(calls.matches(never).count(), 0, "{never}");
    }
}

#[test]
fn a_device_gives_everything_back_before_its_context() {
    let fake = Fake::new();
    let device = fake.device().unwrap();
    device.stream().unwrap();
    device.allocate(100, "a test").unwrap();
    device.communicator(&[0; 128], 0, &[0]).unwrap();
    let opened = fake.calls();
    drop(device);
    let closed = fake.calls();
    for (open, close) in [
        ("cuStreamCreate", "cuStreamDestroy"),
        ("cuEventCreate", "cuEventDestroy"),
        ("cuMemAlloc", "cuMemFree "),
        ("cuMemHostAlloc", "cuMemFreeHost"),
        ("cuModuleLoadDataEx", "cuModuleUnload"),
        ("ncclCommInitRank", "ncclCommDestroy"),
    ] {
        let close = close.trim_end();
        let closes = closed
            .lines()
            .filter(|line| line.split(' ').next() == Some(close))
            .count();
        assert_eq!(opened.matches(open).count(), closes, "{open}: {closed}");
    }
    assert!(closed.ends_with("cuDevicePrimaryCtxRelease 101\n"), "{closed}");
    assert!(closed.starts_with("ncclCommDestroy"), "{closed}");
}
