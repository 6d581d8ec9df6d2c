//! Times kernels of the CPU by schedule: `cargo bench -p syncbn-codegen -- FILTER` prints milliseconds and rate of each
//! case whose line holds the filter.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

#[path = "../tests/schedules/convolutions.rs"]
mod convolutions;
#[expect(dead_code, reason = "only tests read tolerances")]
#[path = "../tests/schedules/module.rs"]
mod module;
#[path = "../tests/schedules/product.rs"]
mod product;

use std::time::{Duration, Instant};

use convolutions::{Shape, directions};
use module::{Case, Memory, arguments, build, compile, step};
use product::product;
use syncbn_ir::schedule::{Depthwise, Direct, Product, Winograd};
use syncbn_ir::{DType, Schedule};

const LANES: usize = 16;
/// Two numbers of 1/32 in f32.
const NUMBERS: u64 = 0x3d00_0000_3d00_0000;

/// A case with the batch and the multiplications of a sample.
struct Timed {
    case: Case,
    samples: usize,
    multiplications: usize,
}

fn main() {
    let filter = std::env::args()
        .skip(1)
        .find(|argument| !argument.starts_with('-'));
    for timed in layers().into_iter().chain(depthwise()).chain(products()) {
        let name = &timed.case.name;
        if filter
            .as_ref()
            .is_some_and(|filter| !name.contains(filter.as_str()))
        {
            continue;
        }
        let seconds = measure(&timed.case, timed.samples);
        let rate = (timed.samples * timed.multiplications) as f64 / seconds / 1e9;
        println!(
            "{:9.3} ms {rate:7.1} GMAC/s  {name} on {} samples",
            seconds * 1e3,
            timed.samples
        );
    }
}

/// The lower quartile of the times of some runs.
fn measure(case: &Case, samples: usize) -> f64 {
    let b = build(std::slice::from_ref(case), samples);
    let library = compile(&b, LANES * 4, DType::F32);
    let small = |bytes: u64| Memory::of(bytes as usize + 64, NUMBERS);
    let (mut weights, mut workspace) = (small(b.weight_bytes), small(b.step_bytes));
    let mut inputs: Vec<Memory> = b
        .inputs
        .iter()
        .map(|(_, ty)| small(ty.bytes(samples).unwrap()))
        .collect();
    let mut outputs: Vec<Memory> = b
        .results
        .iter()
        .map(|(_, ty)| small(ty.bytes(samples).unwrap()))
        .collect();
    let mut partials = small(b.partial_bytes());
    let inputs: Vec<*const u8> = inputs.iter_mut().map(|m| m.address().cast_const()).collect();
    let outputs: Vec<*mut u8> = outputs.iter_mut().map(|m| m.address()).collect();
    let memory = [&mut weights, &mut workspace, &mut partials];
    let arguments = arguments(memory, &inputs, &outputs, samples);
    let begin = Instant::now();
    let mut times = Vec::new();
    while times.len() < 5 || begin.elapsed() < Duration::from_millis(150) {
        let start = Instant::now();
        step(&library, &arguments, 1, 0);
        times.push(start.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    times[times.len() / 4]
}

/// Channels, output channels, edge, kernel and stride of layers, of a small network for batches of 32 and of ResNet-50
/// for batches of 8.
const LAYERS: [(usize, [usize; 5]); 16] = [
    (32, [3, 32, 32, 3, 1]),
    (32, [32, 64, 32, 3, 2]),
    (32, [64, 64, 16, 3, 1]),
    (32, [128, 128, 8, 3, 1]),
    (32, [256, 256, 4, 3, 1]),
    (32, [32, 64, 32, 1, 2]),
    (8, [3, 64, 224, 7, 2]),
    (8, [64, 64, 56, 3, 1]),
    (8, [64, 256, 56, 1, 1]),
    (8, [256, 64, 56, 1, 1]),
    (8, [128, 128, 56, 3, 2]),
    (8, [128, 128, 28, 3, 1]),
    (8, [512, 128, 28, 1, 1]),
    (8, [256, 256, 14, 3, 1]),
    (8, [512, 512, 7, 3, 1]),
    (8, [2048, 512, 7, 1, 1]),
];

fn all_directions(samples: usize, shape: &Shape, schedule: Schedule) -> Vec<Timed> {
    let output: usize = shape.output().unwrap().iter().product();
    let taps: usize = shape.kernel.iter().product();
    let multiplications = output * shape.c / shape.groups * shape.k * taps;
    directions(shape, DType::F32, schedule, false, 1.0)
        .into_iter()
        .map(|case| Timed {
            case,
            samples,
            multiplications,
        })
        .collect()
}

fn layers() -> Vec<Timed> {
    let mut all = Vec::new();
    for (samples, [c, k, edge, kernel, stride]) in LAYERS {
        let shape = Shape::new(c, k, &[edge, edge], kernel, stride, kernel / 2);
        let width = edge / stride;
        let direct = Schedule::Direct(Direct {
            lanes: LANES,
            pixels: if width.is_multiple_of(7) { 14 } else { 8 },
            vectors: 2,
            rows: (65536 / (c * edge * stride)).clamp(1, width),
        });
        all.extend(all_directions(samples, &shape, direct));
        if kernel == 3 && stride == 1 && c >= LANES {
            let winograd = Schedule::Winograd(Winograd {
                lanes: LANES,
                pixels: 8,
                vectors: 2,
                tiles: 64,
                chunked: false,
                prepared: false,
            });
            all.extend(all_directions(samples, &shape, winograd));
        }
    }
    all
}

/// Layers of MobileNetV2 and EfficientNet.
fn depthwise() -> Vec<Timed> {
    let layers = [
        [32, 112, 3, 1],
        [96, 112, 3, 2],
        [144, 56, 3, 1],
        [240, 28, 5, 1],
        [384, 14, 3, 1],
        [672, 14, 5, 2],
        [960, 7, 3, 1],
    ];
    let mut all = Vec::new();
    for [c, edge, kernel, stride] in layers {
        let shape = Shape {
            groups: c,
            ..Shape::new(c, c, &[edge, edge], kernel, stride, kernel / 2)
        };
        let depthwise = Schedule::Depthwise(Depthwise {
            lanes: LANES,
            pixels: if edge.is_multiple_of(8) { 8 } else { 7 },
        });
        for schedule in [depthwise, Schedule::General] {
            all.extend(all_directions(8, &shape, schedule));
        }
    }
    all
}

/// Last layers of ResNet-50 and of a small network, with the weight in both orders, and their gradients.
fn products() -> Vec<Timed> {
    let mut all = Vec::new();
    for (samples, terms, columns) in [(8, 2048, 1000), (32, 2048, 1000), (32, 256, 10)] {
        let blocked = Schedule::Product(Product {
            lanes: LANES,
            pixels: 8,
            vectors: 2,
            depth: 192,
        });
        for schedule in [blocked, Schedule::General] {
            let forward = [None, Some(terms), Some(columns)];
            let backward = [None, Some(columns), Some(terms)];
            let weight = [Some(columns), None, Some(terms)];
            for (sizes, transposed) in [
                (forward, [false, true]),
                (forward, [false, false]),
                (backward, [false, false]),
                (weight, [true, false]),
            ] {
                all.push(Timed {
                    case: product(sizes, transposed, DType::F32, schedule, 1.0),
                    samples,
                    multiplications: terms * columns,
                });
            }
        }
    }
    all
}
