//! All-reduces of emulated devices, each rank a thread with its own device.

use std::{
    sync::{Barrier, Mutex, mpsc},
    thread,
    time::Duration,
};

use syncbn_abi::{NCCL_FLOAT32, NCCL_FLOAT64, NCCL_SUM};

use super::*;
use crate::{
    error::Error,
    gpu::symbols::{ncclAllReduce, ncclGroupEnd, ncclGroupStart, syncbn_rt_nccl_check},
};

/// Sums `values` of a rank in place on its device.
fn all_reduce(
    device: &EmulatedDevice,
    communicator: *mut c_void,
    data_type: i32,
    bytes: &[u8],
    count: usize,
) -> Result<Vec<u8>> {
    let data = device.allocate(bytes.len() as u64, "a test").unwrap();
    device.upload(data, bytes).unwrap();
    let stream = device.stream().unwrap();
    // SAFETY: stream and communicator are the device's, and so is the data.
    unsafe {
        let status = ncclAllReduce(
            data.cast(),
            data.cast(),
            count as u64,
            data_type,
            NCCL_SUM,
            communicator,
            stream,
        );
        syncbn_rt_nccl_check(stream, status);
    }
    device.synchronize(stream)?;
    let mut sum = vec![0; bytes.len()];
    device.download(data, &mut sum).unwrap();
    Ok(sum)
}

/// Runs `body` as each of `peers`, with a communicator that the first one identifies.
fn together<R: Send>(
    peers: &[usize],
    body: impl Fn(&EmulatedDevice, *mut c_void, usize) -> R + Sync,
) -> Vec<R> {
    let (sender, receiver) = mpsc::channel();
    let receiver = Mutex::new(receiver);
    let (receiver, body) = (&receiver, &body);
    thread::scope(|scope| {
        let ranks: Vec<_> = (0..peers.len())
            .map(|rank| {
                let sender = sender.clone();
                scope.spawn(move || {
                    let device = EmulatedDevice::with_seed(vec![], vec![], 0).unwrap();
                    if rank == 0 {
                        let id = device.unique_id().unwrap();
                        peers.iter().for_each(|_| sender.send(id.clone()).unwrap());
                    }
                    let id = receiver.lock().unwrap().recv().unwrap();
                    let communicator = device.communicator(&id, rank, peers).unwrap();
                    body(&device, communicator, rank)
                })
            })
            .collect();
        ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
    })
}

fn f64s(bytes: &[u8]) -> Vec<f64> {
    bytes
        .as_chunks()
        .0
        .iter()
        .map(|&value| f64::from_ne_bytes(value))
        .collect()
}

#[test]
fn all_ranks_get_the_sum_in_rank_order() {
    let terms = [1e16f32, 1.0, -1e16, 3.0];
    let sums = together(&[0, 1, 2, 3], |device, communicator, rank| {
        assert_eq!(device.collectives(), 0);
        let mut last = Vec::new();
        for _ in 0..3 {
            last = all_reduce(device, communicator, NCCL_FLOAT32, &terms[rank].to_ne_bytes(), 1).unwrap();
        }
        assert_eq!(device.collectives(), 3);
        last
    });
    let expected = ((terms[0] + terms[1]) + terms[2]) + terms[3];
    assert!(sums.iter().all(|sum| sum == &expected.to_ne_bytes()));
}

#[test]
fn large_sums_and_empty_ones() {
    let count = 300_000;
    let sums = together(&[4, 7], |device, communicator, rank| {
        let values: Vec<u8> = (0..count)
            .flat_map(|i| ((i * (rank + 1)) as f64).to_ne_bytes())
            .collect();
        let nothing = all_reduce(device, communicator, NCCL_FLOAT64, &[], 0).unwrap();
        assert!(nothing.is_empty());
        f64s(&all_reduce(device, communicator, NCCL_FLOAT64, &values, count).unwrap())
    });
    for sum in sums {
        assert!(sum.iter().enumerate().all(|(i, &value)| value == 3.0 * i as f64));
    }
}

#[test]
fn different_counts_are_an_error_on_all_ranks() {
    let errors = together(&[0, 1, 2], |device, communicator, rank| {
        let count = if rank == 1 { 30_000 } else { 1 };
        all_reduce(device, communicator, NCCL_FLOAT32, &vec![0; 4 * count], count).unwrap_err()
    });
    for error in errors {
        assert_eq!(error.kind, Kind::Internal);
        assert!(
            error.message.contains("rank 0 sums 1 elements") && error.message.contains("rank 1 sums 30000"),
            "{error}"
        );
    }
}

#[test]
fn a_rank_that_goes_away_is_named_by_its_rank_in_the_run() {
    let errors: Vec<Option<Error>> = together(&[3, 5, 8], |device, communicator, rank| {
        all_reduce(device, communicator, NCCL_FLOAT32, &[0; 4], 1).unwrap();
        (rank != 2).then(|| {
            let large = vec![0; 1 << 22];
            all_reduce(device, communicator, NCCL_FLOAT32, &large, 1 << 20).unwrap_err()
        })
    });
    for error in errors.iter().flatten() {
        assert_eq!(error.kind, Kind::RankDied);
        assert!(error.message.contains("rank 8 is gone"), "{error}");
    }
    assert_eq!(errors.iter().flatten().count(), 2);
}

#[test]
fn whoever_does_not_know_the_identifier_does_not_get_in() {
    let device = EmulatedDevice::with_seed(vec![], vec![], 0).unwrap();
    let id = device.unique_id().unwrap();
    let text = String::from_utf8(id.clone()).unwrap();
    let mut words: Vec<&str> = text.split(' ').collect();
    words[0] = "12345";
    let wrong = words.join(" ").into_bytes();
    assert!(device.communicator(&wrong, 0, &[0]).is_err());
    assert!(device.communicator(b"nonsense", 0, &[0]).is_err());
    let communicator = device.communicator(&id, 0, &[0]).unwrap();
    let sum = all_reduce(&device, communicator, NCCL_FLOAT64, &2.5f64.to_ne_bytes(), 1).unwrap();
    assert_eq!(f64s(&sum), [2.5]);
}

#[test]
fn what_cannot_be_summed_is_refused() {
    let errors = together(&[0], |device, communicator, _| {
        let type_error = all_reduce(device, communicator, 0, &[0; 4], 1).unwrap_err();
        let bounds_error = all_reduce(device, communicator, NCCL_FLOAT32, &[0; 4], 2).unwrap_err();
        [type_error, bounds_error]
    });
    assert!(errors[0][0].message.contains("type 0"), "{}", errors[0][0]);
    assert!(
        errors[0][1].message.contains("ends 4 bytes past"),
        "{}",
        errors[0][1]
    );
}

#[test]
fn a_group_counts_as_one_collective() {
    together(&[0, 1], |device, communicator, _| {
        ncclGroupStart();
        all_reduce(device, communicator, NCCL_FLOAT32, &[0; 4], 1).unwrap();
        all_reduce(device, communicator, NCCL_FLOAT32, &[0; 4], 1).unwrap();
        ncclGroupEnd();
        assert_eq!(device.collectives(), 1);
    });
}

#[test]
fn aborting_ends_a_rank_that_waits() {
    let over = Barrier::new(2);
    let errors = together(&[0, 1], |device, communicator, rank| {
        let error = (rank == 0).then(|| {
            let abort = device.aborter();
            thread::spawn(move || {
                thread::sleep(Duration::from_millis(50));
                abort();
            });
            all_reduce(device, communicator, NCCL_FLOAT32, &[0; 4], 1).unwrap_err()
        });
        over.wait();
        error
    });
    assert_eq!(errors[0].as_ref().unwrap().kind, Kind::RankDied);
}
