//! The all-reduce against plain sums, and under stress.

use std::thread;

use proptest::prelude::*;

use super::*;

/// One buffer of a rank.
#[derive(Debug, Clone, PartialEq)]
enum Buffer {
    F32(Vec<f32>),
    F64(Vec<f64>),
}

impl Buffer {
    fn segment(&mut self) -> Segment {
        match self {
            Buffer::F32(v) => Segment {
                data: v.as_mut_ptr().cast(),
                elements: v.len() as i64,
                element_type: 0,
            },
            Buffer::F64(v) => Segment {
                data: v.as_mut_ptr().cast(),
                elements: v.len() as i64,
                element_type: 1,
            },
        }
    }

    fn bits(&self) -> Vec<u64> {
        match self {
            Buffer::F32(v) => v.iter().map(|x| u64::from(x.to_bits())).collect(),
            Buffer::F64(v) => v.iter().map(|x| x.to_bits()).collect(),
        }
    }
}

/// `lengths[i]` elements in segment i, f32 where the index is even.
fn make(rank: usize, lengths: &[usize]) -> Vec<Buffer> {
    let value = |segment: usize, i: usize| {
        let mixed = (rank * 7919 + segment * 104_729 + i * 31).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        (mixed >> 11) as f64 / (1_u64 << 53) as f64 * 1e3 - 500.0
    };
    let buffer = |(s, &length): (usize, &usize)| match s % 2 {
        0 => Buffer::F32((0..length).map(|i| value(s, i) as f32).collect()),
        _ => Buffer::F64((0..length).map(|i| value(s, i)).collect()),
    };
    lengths.iter().enumerate().map(buffer).collect()
}

fn plain_sum(ranks: &[Vec<Buffer>]) -> Vec<Buffer> {
    (0..ranks[0].len())
        .map(|s| match &ranks[0][s] {
            Buffer::F32(first) => Buffer::F32(
                (0..first.len())
                    .map(|i| {
                        let of = |rank: &Vec<Buffer>| match &rank[s] {
                            Buffer::F32(v) => f64::from(v[i]),
                            Buffer::F64(v) => v[i],
                        };
                        ranks.iter().map(of).reduce(|a, b| a + b).unwrap() as f32
                    })
                    .collect(),
            ),
            Buffer::F64(first) => Buffer::F64(
                (0..first.len())
                    .map(|i| {
                        let of = |rank: &Vec<Buffer>| match &rank[s] {
                            Buffer::F32(v) => f64::from(v[i]),
                            Buffer::F64(v) => v[i],
                        };
                        ranks.iter().map(of).reduce(|a, b| a + b).unwrap()
                    })
                    .collect(),
            ),
        })
        .collect()
}

fn run(team: &Team, ranks: &mut [Vec<Buffer>]) {
    thread::scope(|scope| {
        for (member, buffers) in ranks.iter_mut().enumerate() {
            scope.spawn(move || {
                let segments: Vec<Segment> = buffers.iter_mut().map(Buffer::segment).collect();
                // SAFETY: the buffers are this thread's own and live through the call.
                unsafe { team.all_reduce(member, 3, &segments) }.unwrap();
            });
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 3 } else { 64 }))]

    #[test]
    fn every_rank_gets_the_plain_sum(
        ranks in 1_usize..9,
        lengths in proptest::collection::vec(0_usize..700, 0..5),
    ) {
        let mut buffers: Vec<_> = (0..ranks).map(|rank| make(rank, &lengths)).collect();
        let expected = plain_sum(&buffers);
        run(&Team::new(ranks, false), &mut buffers);
        for rank in &buffers {
            for (found, expected) in rank.iter().zip(&expected) {
                prop_assert_eq!(found.bits(), expected.bits());
            }
        }
    }

    #[test]
    fn slices_tile_the_elements(elements in 0_usize..5000, parts in 1_usize..20, wide in any::<bool>()) {
        let bytes = if wide { 8 } else { 4 };
        let mut next = 0;
        for part in 0..parts {
            let (begin, end) = slice_of(elements, bytes, part, parts);
            prop_assert_eq!(begin, next);
            prop_assert!(begin <= end);
            prop_assert!(begin % (64 / bytes) == 0 || begin == elements);
            next = end;
        }
        prop_assert_eq!(next, elements);
    }
}

/// Many calls in a row over few cores: a missing barrier or a wrong slice shows as a wrong sum.
#[test]
fn stress() {
    let calls = if cfg!(miri) { 3 } else { 3000 };
    for (ranks, spin) in [(2, true), (3, false), (5, false), (8, true)] {
        let team = Team::new(ranks, spin);
        thread::scope(|scope| {
            for member in 0..ranks {
                let team = &team;
                scope.spawn(move || {
                    let mut values = vec![0.0_f64; 97];
                    for call in 0..calls {
                        values.fill((member * calls + call) as f64);
                        let segment = Segment {
                            data: values.as_mut_ptr().cast(),
                            elements: 97,
                            element_type: 1,
                        };
                        // SAFETY: the buffer is this thread's own and lives through the call.
                        unsafe { team.all_reduce(member, call as i64, &[segment]) }.unwrap();
                        let expected: usize = (0..ranks).map(|rank| rank * calls + call).sum();
                        assert!(values.iter().all(|value| *value == expected as f64));
                    }
                });
            }
        });
    }
}

#[test]
fn diverged_ranks_get_an_error_and_poison_the_team() {
    for different in ["collective", "length", "type"] {
        let team = Team::new(2, false);
        thread::scope(|scope| {
            for member in 0..2 {
                let team = &team;
                scope.spawn(move || {
                    let mut values = [1.0_f64; 4];
                    let odd = member == 1;
                    let segment = Segment {
                        data: values.as_mut_ptr().cast(),
                        elements: if odd && different == "length" { 3 } else { 4 },
                        element_type: i64::from(!(odd && different == "type")),
                    };
                    let collective = i64::from(odd && different == "collective");
                    // SAFETY: the buffer is this thread's own and lives through the call.
                    let result = unsafe { team.all_reduce(member, collective, &[segment]) };
                    assert!(
                        matches!(result, Err(Failure::Mismatch(_))),
                        "{different}: {result:?}"
                    );
                    // SAFETY: as above.
                    let again = unsafe { team.all_reduce(member, 0, &[segment]) };
                    assert_eq!(again, Err(Failure::Poisoned));
                });
            }
        });
    }
}

#[test]
fn a_failing_rank_releases_the_others() {
    let team = Team::new(3, false);
    thread::scope(|scope| {
        for member in 0..2 {
            let team = &team;
            scope.spawn(move || {
                // SAFETY: there is no segment.
                assert_eq!(unsafe { team.all_reduce(member, 0, &[]) }, Err(Failure::Poisoned));
            });
        }
        thread::sleep(std::time::Duration::from_millis(10));
        team.poison();
    });
}

#[test]
fn wide_vectors_give_the_bits_of_narrow_ones() {
    let elements = 1000;
    let values = |rank: u32| -> Vec<f32> {
        let value = |i: u32| (i.wrapping_mul(2_654_435_761).rotate_left(rank * 7) as f32 / 1e9 - 2.0) * 1.1;
        (0..elements as u32).map(value).collect()
    };
    let ranks: Vec<Vec<f32>> = (0..3).map(values).collect();
    let (mut narrow, mut wide) = (ranks.clone(), ranks);
    for (all, sum) in [
        (&mut narrow, add_up::<f32> as unsafe fn(&[*mut u8], usize, usize)),
        (&mut wide, sum_slice::<f32>),
    ] {
        let data: Vec<*mut u8> = all.iter_mut().map(|rank| rank.as_mut_ptr().cast()).collect();
        for member in 0..3 {
            // SAFETY: the buffers have so many elements, and one member sums at a time.
            unsafe { sum(&data, elements, member) };
        }
    }
    let bits = |all: &[Vec<f32>]| -> Vec<u32> { all.iter().flatten().map(|value| value.to_bits()).collect() };
    assert_eq!(bits(&narrow), bits(&wide));
    assert!(wide[0] == wide[1] && wide[1] == wide[2]);
}
