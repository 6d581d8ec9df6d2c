//! The order of a step's calls of the driver, on a fake of it.

use std::{cell::RefCell, ffi::c_void, sync::Arc};

use serde_json::json;
use syncbn_abi::GpuArguments;

use super::*;
use crate::{
    execution::{Batch, Execution, Purpose, Threads},
    files::data::{Column, Dataset},
    gpu::{
        Devices, Gpus,
        cuda::{self, fake::Fake},
        symbols::{syncbn_rt_launch, syncbn_rt_stream_wait},
    },
    optimizer::{Optimizer, Update},
    sampler::Share,
};

static GPUS: Gpus = Gpus {
    count: || Ok(1),
    open: |_, _| {
        let device = FAKE.with_borrow(|fake| fake.as_ref().unwrap().device())?;
        Ok(Box::new(device))
    },
    survey: cuda::GPUS.survey,
};

thread_local! {
    /// The driver of this test.
    static FAKE: RefCell<Option<Fake>> = const { RefCell::new(None) };
}

fn calls() -> String {
    FAKE.with_borrow(|fake| fake.as_ref().unwrap().calls())
}

unsafe extern "C" fn function(arguments: *const GpuArguments) -> i32 {
    let n = 7i32;
    let parameters = [(&raw const n).cast::<c_void>()];
    // SAFETY: the runtime passes streams of its device.
    unsafe {
        let a = &*arguments;
        syncbn_rt_launch(a.stream, 0, 1, 1, 1, parameters.as_ptr());
        // As generated code does after its last node.
        syncbn_rt_stream_wait(a.stream, a.gradient_stream);
    }
    0
}

fn part() -> GpuPart {
    let tensor = json!({"name": "x", "element_type": "f32", "shape": [3]});
    let model = json!({
        "compiler": "", "name": "fake", "flags": [], "targets": ["cuda"],
        "gpu": {
            "precision": "f32", "cuda": true, "emulated": false, "kernels": [], "train_constants": 0, "infer_constants": 0
        },
        "cpu": {"flag": "native", "name": "", "features": []}, "glibc": null, "element_type": "f32",
        "batch_bound": 4, "train": true, "infer": false, "inputs": [tensor],
        "target": {"kind": "classes", "classes": 2, "shape": []}, "outputs": [], "parameters": [], "statistics": [],
        "batch_norms": [], "batch_norm_mode": "sync", "collectives": [],
        "uncombined": {"collectives": 0, "bytes": 0}, "schedule_hash": 0, "train_nodes": [], "infer_nodes": [],
        "arenas": {"weights": 0, "trained": 0, "statistics": 0, "prepared": 0, "train_step": 0, "infer_step": 0},
        "warnings": [],
    });
    GpuPart {
        model: serde_json::from_value(model).unwrap(),
        data: &[],
        train_step: Some(function),
        update_sgd: Some(function),
        update_adamw: Some(function),
        infer_prepare: None,
        infer_step: None,
        train_constants: &[],
        infer_constants: &[],
        images: &[],
        emulated_kernels: &[],
        devices: Devices {
            cuda: Some(&GPUS),
            emulated: None,
        },
    }
}

const SGD: Optimizer = Optimizer::Sgd {
    momentum: 0.0,
    weight_decay: 0.0,
    nesterov: false,
};

/// An execution, and the driver's numbers of its streams of copies, kernels and gradients.
fn start(options: Options) -> (GpuExecution, [String; 3]) {
    FAKE.set(Some(Fake::new()));
    let purpose = Purpose {
        threads: Threads {
            per_rank: 1,
            cores: 1,
        },
        ranks: 1,
        capacity: 4,
        train: Some(SGD),
        infer: false,
    };
    let execution = GpuExecution::start(
        &Arc::new(part()),
        Kind::Cuda,
        &Seat::default(),
        purpose,
        options,
        None,
        Arc::default(),
    );
    let log = calls();
    let created: Vec<String> = log
        .lines()
        .filter_map(|line| line.strip_prefix("cuStreamCreate -> "))
        .map(String::from)
        .collect();
    // The first is that of copies that the host waits for.
    let [_, copies, kernels, ..] = &created[..] else {
        panic!("{log}")
    };
    let gradients = created.get(3).unwrap_or(kernels);
    (
        execution.unwrap(),
        [copies, kernels, gradients].map(String::clone),
    )
}

fn batches(counts: &[u64]) -> Vec<Batch> {
    let columns = vec![Column::new(vec![1; 8 * 12], 12), Column::new(vec![0; 8 * 8], 8)];
    let (data, order) = (Arc::new(Dataset::new(8, columns)), Arc::new((0..8).collect()));
    let batch = |&count: &u64| Batch {
        data: Arc::clone(&data),
        order: Arc::clone(&order),
        share: Arc::new(Share {
            begin: 0,
            counts: vec![count],
        }),
    };
    counts.iter().map(batch).collect()
}

/// The calls as `name stream`, where a stream is one of the three.
fn named(log: &str, streams: &[String; 3]) -> Vec<String> {
    let name = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        let after = |word: &str| words.iter().position(|w| *w == word).map(|at| words[at + 1]);
        let own = ["cuStreamWaitEvent", "cuStreamSynchronize"].contains(&words[0]);
        let stream = if own { Some(words[1]) } else { after("stream") };
        let known = stream.and_then(|stream| streams.iter().position(|known| known == stream));
        match known {
            Some(index) => format!("{} {}", words[0], ["copies", "kernels", "gradients"][index]),
            None => words[0].to_string(),
        }
    };
    log.lines().map(name).collect()
}

const ON: Options = Options {
    graphs: true,
    overlap: true,
};

#[test]
fn the_next_batch_is_copied_while_a_step_runs() {
    let (execution, streams) = start(ON);
    let batches = batches(&[2; 6]);
    for step in 0..5 {
        execution
            .train_step(&batches[step], batches.get(step + 1), false)
            .unwrap();
        execution
            .update(Update {
                optimizer: SGD,
                lr: 0.1,
                step: step as u64,
            })
            .unwrap();
    }
    assert_eq!(execution.replays(), Some(3));
    calls();
    execution.train_step(&batches[5], None, false).unwrap();
    let last = calls();
    assert!(!last.contains("cuMemcpy"), "{last}");
    drop(execution);

    let (execution, streams_again) = start(ON);
    assert_eq!(streams, streams_again);
    for step in 0..4 {
        calls();
        execution
            .train_step(&batches[step], batches.get(step + 1), false)
            .unwrap();
    }
    let expected = [
        // The step waits for its batch, and the next copy for the step before.
        "cuEventRecord copies",
        "cuStreamWaitEvent kernels",
        "cuEventRecord kernels",
        "cuStreamWaitEvent copies",
        "cuGraphLaunch kernels",
        "cuStreamSynchronize copies",
        "cuMemcpyHtoDAsync copies",
        "cuMemcpyHtoDAsync copies",
        "cuStreamSynchronize gradients",
        "cuStreamSynchronize kernels",
    ];
    let step = named(&calls(), &streams);
    let begin = step
        .iter()
        .position(|call| call == "cuEventRecord copies")
        .unwrap();
    // The fourth step is the first of its set of buffers to be captured, which comes before.
    let captured: Vec<&String> = step.iter().filter(|call| call.contains("Capture")).collect();
    assert_eq!(captured, ["cuStreamBeginCapture", "cuStreamEndCapture"]);
    let without_capture: Vec<&String> = {
        let from = step
            .iter()
            .position(|call| call == "cuStreamBeginCapture")
            .unwrap();
        let to = step.iter().position(|call| call == "cuGraphDestroy").unwrap();
        step[begin..from].iter().chain(&step[to + 1..]).collect()
    };
    assert_eq!(without_capture, expected);
}

#[test]
fn a_captured_step_takes_the_gradients_stream_along_and_brings_the_loss() {
    for (options, fork) in [(ON, true), (Options { overlap: false, ..ON }, false)] {
        let (execution, streams) = start(options);
        let batches = batches(&[2, 2, 2]);
        for batch in &batches {
            calls();
            execution.train_step(batch, None, false).unwrap();
        }
        let step = named(&calls(), &streams);
        let from = step
            .iter()
            .position(|call| call == "cuStreamBeginCapture")
            .unwrap();
        let to = step.iter().position(|call| call == "cuStreamEndCapture").unwrap();
        let wait = ["cuEventRecord gradients", "cuStreamWaitEvent kernels"];
        let mut expected = vec![];
        if fork {
            expected.extend(["cuEventRecord kernels", "cuStreamWaitEvent gradients"]);
        }
        expected.push("cuLaunchKernel kernels");
        expected.extend(wait.iter().filter(|_| fork));
        expected.push("cuMemcpyDtoHAsync kernels");
        expected.extend(wait.iter().filter(|_| fork));
        assert_eq!(step[from + 1..to], expected);
    }
}

#[test]
fn an_update_is_replayed_with_its_new_arguments_and_nobody_waits_for_it() {
    let (execution, streams) = start(ON);
    let batch = &batches(&[2])[0];
    for step in 0..4 {
        execution.train_step(batch, None, false).unwrap();
        calls();
        let update = Update {
            optimizer: SGD,
            lr: 0.1,
            step,
        };
        execution.update(update).unwrap();
    }
    assert_eq!(named(&calls(), &streams), ["cuGraphLaunch kernels"]);
    // The copy of the arguments is in the graph.
    let (execution, streams) = start(ON);
    for step in 0..2 {
        calls();
        let update = Update {
            optimizer: SGD,
            lr: 0.1,
            step,
        };
        execution.update(update).unwrap();
    }
    let captured = named(&calls(), &streams);
    let copy = captured
        .iter()
        .position(|call| call == "cuMemcpyHtoDAsync kernels")
        .unwrap();
    let kernel = captured
        .iter()
        .position(|call| call == "cuLaunchKernel kernels")
        .unwrap();
    assert!(copy < kernel, "{captured:?}");
}

#[test]
fn a_step_that_cannot_be_captured_is_called_directly_from_then_on() {
    let (execution, _) = start(ON);
    let batch = &batches(&[2])[0];
    for step in 0..6 {
        if step == 2 {
            FAKE.with_borrow(|fake| fake.as_ref().unwrap().fail("cuGraphInstantiate", 2));
        }
        execution.train_step(batch, None, false).unwrap();
    }
    let log = calls();
    assert_eq!(log.matches("cuStreamBeginCapture").count(), 1);
    assert_eq!(log.matches("cuGraphLaunch").count(), 0);
    // Six steps, and the one that was captured in vain.
    assert_eq!(log.matches("cuLaunchKernel").count(), 7);
    assert_eq!(execution.replays(), Some(0));
}
