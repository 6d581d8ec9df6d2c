//! Jobs on every rank, and what happens when one fails.

use std::sync::atomic::{AtomicU64, Ordering};

use syncbn_abi::{Arenas, Collective, Cpu, ElementType, Model, Segment};

use super::*;
use crate::cpu::collectives::{Context, syncbn_rt_all_reduce};

/// A model with nothing in it but two collectives: over all ranks, and over groups of 2.
fn model() -> Model {
    let collective = |group| Collective {
        name: "sum".into(),
        group,
        bytes: 8,
        gradients: false,
    };
    Model {
        compiler: String::new(),
        name: String::new(),
        flags: vec![],
        targets: vec![],
        cpu: Cpu {
            flag: String::new(),
            name: String::new(),
            features: vec![],
        },
        glibc: None,
        element_type: ElementType::F64,
        batch_bound: 1,
        train: true,
        infer: true,
        threads: false,
        inputs: vec![],
        target: None,
        outputs: vec![],
        parameters: vec![],
        statistics: vec![],
        batch_norms: vec![],
        batch_norm_mode: "group=2".into(),
        collectives: vec![collective(0), collective(2)],
        uncombined: syncbn_abi::Uncombined::default(),
        gpu: None,
        schedule_hash: 1,
        train_nodes: vec![],
        infer_nodes: vec![],
        arenas: Arenas::default(),
        warnings: vec![],
    }
}

fn crew(count: usize) -> Crew {
    let model = model();
    let collectives = Arc::new(Collectives::new(&model, count, false));
    let rank = |index| {
        Rank::new(
            &model,
            index,
            (2, false),
            Arc::clone(&collectives),
            1,
            (true, true),
        )
        .unwrap()
    };
    Crew::start((0..count).map(rank).collect(), collectives, false).unwrap()
}

/// Sums `value` over the scope of `collective`, as generated code does.
fn sum(context: &Context, collective: i64, value: f64) -> Result<f64> {
    let mut value = value;
    let segment = Segment {
        data: (&raw mut value).cast(),
        elements: 1,
        element_type: 1,
    };
    let context_pointer = std::ptr::from_ref(context).cast_mut().cast();
    // SAFETY: the context and the segment live through the call.
    let status = unsafe { syncbn_rt_all_reduce(context_pointer, collective, &raw const segment, 1) };
    if status == 0 {
        Ok(value)
    } else {
        Err(context.take_failure().unwrap())
    }
}

#[test]
fn jobs_run_on_every_rank_and_collectives_keep_to_their_scope() {
    let crew = crew(6);
    let seen = Arc::new(AtomicU64::new(0));
    for round in 0..100 {
        let seen = Arc::clone(&seen);
        crew.run(move |rank| {
            let index = rank.index() as f64;
            assert_eq!(sum(rank.context(), 0, index)?, 15.0);
            let first = (rank.index() / 2 * 2) as f64;
            assert_eq!(sum(rank.context(), 1, index)?, first + first + 1.0);
            seen.fetch_add(1 << rank.index(), Ordering::Relaxed);
            Ok(())
        })
        .unwrap_or_else(|error| panic!("round {round}: {error}"));
    }
    assert_eq!(seen.load(Ordering::Relaxed), 100 * 0b11_1111);
    assert!((0..6).all(|rank| crew.rank(rank).context().executed() == 200));
}

#[test]
fn a_panicking_rank_ends_all_with_its_error() {
    for (victim, scope) in [(0, 0), (3, 0), (3, 1)] {
        let crew = crew(4);
        let error = crew.run(move |rank| {
            assert!(rank.index() != victim, "the dog ate it");
            sum(rank.context(), scope, 1.0).map(drop)?;
            // In groups, ranks that do not share one with the victim only fail here.
            sum(rank.context(), 0, 1.0).map(drop)
        });
        let error = error.unwrap_err();
        assert_eq!(error.kind, Kind::Internal);
        assert!(
            error.message.contains(&format!("rank {victim} panicked")),
            "{error}"
        );
        assert!(error.message.contains("the dog ate it"), "{error}");
        // The crew still answers, but collectives stay poisoned.
        assert!(crew.run(|_| Ok(())).is_ok());
        assert!(crew.run(|rank| sum(rank.context(), 0, 1.0).map(drop)).is_err());
    }
}

#[test]
fn ranks_with_other_schedules_are_told_apart() {
    let crew = crew(3);
    let agree = |crew: &Crew, odd: u64| {
        crew.run(move |rank| {
            let hash = if rank.index() == 2 { odd } else { 7 };
            rank.context().collectives().agree_on_schedule(rank.index(), hash)
        })
    };
    agree(&crew, 7).unwrap();
    assert!(agree(&crew, 8).unwrap_err().message.contains("schedule"));
}

#[test]
fn unknown_collectives_are_errors() {
    let crew = crew(2);
    let error = crew
        .run(|rank| sum(rank.context(), 9, 1.0).map(drop))
        .unwrap_err();
    assert!(error.message.contains("no collective 9"), "{error}");
}
