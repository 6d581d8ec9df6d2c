//! Random convolutions in all three directions, under whichever schedules fit them. `SYNCBN_RANDOM_CONVOLUTIONS` says how
//! many; the default is few, since each is compiled.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use syncbn_ir::schedule::{Depthwise, Direct, Pointwise, Winograd};
use syncbn_ir::{DType, Schedule};

use crate::convolutions::{Shape, directions};
use crate::harness::{BOUND, run, widths};
use crate::module::Case;

/// How many convolutions there are if the environment does not say.
const USUAL: u64 = 1000;
/// Convolutions that are compiled at a time.
const AT_A_TIME: usize = 25;

/// A generator of random numbers.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Random {
        Random((seed + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn below(&mut self, count: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 33) as usize % count
    }

    fn from(&mut self, low: usize, high: usize) -> usize {
        low + self.below(high + 1 - low)
    }

    fn of<T: Copy>(&mut self, values: &[T]) -> T {
        values[self.below(values.len())]
    }
}

fn shape(r: &mut Random) -> Shape {
    loop {
        let rank = r.of(&[1, 2, 2, 2, 3]);
        let longest = [20, 11, 7][rank - 1];
        let per_group = |r: &mut Random| r.of(&[1, 2, 3, 5, 8, 16, 17, 21, 32]);
        let groups = r.of(&[1, 1, 1, 2, 3, 4]);
        let (c, k) = (groups * per_group(r), groups * per_group(r));
        let input: Vec<usize> = (0..rank).map(|_| r.from(1, longest)).collect();
        let kind = r.below(8);
        let each = |r: &mut Random, low, high| (0..rank).map(|_| r.from(low, high)).collect::<Vec<_>>();
        let shape = match kind {
            // What Winograd's algorithm takes for stride 1, and for stride 2.
            0 | 1 => Shape::new(c / groups, k / groups, &input, 3, kind + 1, 1),
            2 => Shape::new(c, k, &input, 1, r.from(1, 3), 0),
            _ => Shape {
                kernel: each(r, 1, 7),
                strides: each(r, 1, 3),
                dilations: each(r, 1, 3),
                pads: [each(r, 0, 4), each(r, 0, 4)].concat(),
                groups,
                ..Shape::new(c, k, &input, 1, 1, 0)
            },
        };
        let shape = match kind {
            3 | 4 => Shape {
                k: c,
                groups: c,
                ..shape
            },
            _ => shape,
        };
        if shape.output().is_some() {
            return shape;
        }
    }
}

fn schedules(r: &mut Random, lanes: usize) -> Vec<Schedule> {
    let (pixels, vectors, rows) = (r.from(1, 14), r.from(1, 3), r.of(&[1, 2, 5, 50]));
    let chunked = r.below(2) == 0;
    // A gradient for weights that is taken chunk by chunk needs all tiles at once.
    let tiles = if chunked { 128 } else { r.of(&[8, 16, 32]) };
    let winograd = Winograd {
        lanes,
        pixels: r.of(&[1, 2, 4, 8]),
        vectors,
        tiles,
        chunked,
        prepared: false,
    };
    let direct = Direct {
        lanes,
        pixels,
        vectors,
        rows,
    };
    vec![
        Schedule::Winograd(winograd),
        Schedule::Polyphase(winograd),
        Schedule::Depthwise(Depthwise { lanes, pixels }),
        Schedule::Pointwise(Pointwise(direct)),
        Schedule::Direct(direct),
        Schedule::General,
    ]
}

/// The convolution of a seed in all directions, under a schedule that fits it.
fn cases(seed: u64, dtype: DType, lanes: usize) -> Vec<Case> {
    let mut r = Random::new(seed);
    let shape = shape(&mut r);
    let tolerance = if dtype == DType::F32 { 2e-5 } else { 1e-12 };
    let fitting: Vec<Vec<Case>> = schedules(&mut r, lanes)
        .into_iter()
        .map(|schedule| directions(&shape, dtype, schedule, false, tolerance))
        .filter(|cases| cases.iter().all(fits))
        .collect();
    // The general form takes part where nothing else fits.
    let chosen = r.below((fitting.len() - 1).max(1));
    let mut cases = fitting[chosen].clone();
    for case in &mut cases {
        case.name = format!("seed {seed}: {}", case.name);
    }
    cases
}

fn fits(case: &Case) -> bool {
    let operands: Vec<_> = case.operands.iter().collect();
    let results = case.op.infer(&operands);
    let results: Vec<_> = results.iter().flatten().collect();
    case.schedule.fits(&case.op, &operands, &results).is_ok()
}

#[test]
fn random_convolutions_agree_in_all_directions() {
    let given = std::env::var("SYNCBN_RANDOM_CONVOLUTIONS").ok();
    let count = given.and_then(|text| text.parse().ok()).unwrap_or(USUAL);
    let seeds: Vec<u64> = (0..count).collect();
    println!("convolutions of seeds 0 to {}", count.saturating_sub(1));
    let chunks: Vec<&[u64]> = seeds.chunks(AT_A_TIME).collect();
    on_all_processors(chunks.len(), |i| {
        let vector_bytes = widths()[i % widths().len()];
        let dtype = if i % 5 == 4 { DType::F64 } else { DType::F32 };
        let lanes = vector_bytes / dtype.bytes() as usize;
        let of = |&seed: &u64| cases(seed, dtype, lanes);
        let all: Vec<Case> = chunks[i].iter().flat_map(of).collect();
        run(&all, vector_bytes, &[BOUND - 1]);
    });
}

/// Does each of so many things, several at the same time.
fn on_all_processors(count: usize, work: impl Fn(usize) + Sync) {
    let next = AtomicUsize::new(0);
    let take = || {
        while let Some(i) = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|&i| i < count) {
            work(i);
        }
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(take);
        }
    });
}
