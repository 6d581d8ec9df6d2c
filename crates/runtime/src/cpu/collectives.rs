//! What generated code calls: the collectives of a rank, and the tracing of a step.

use std::{
    collections::BTreeMap,
    ffi::c_void,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use syncbn_abi::{ElementType, Model, Segment};

use crate::{
    cpu::{
        all_reduce::{Failure, Team},
        barrier::Barrier,
    },
    error::{Error, Result},
    trace::Trace,
};

/// All teams of a run.
#[derive(Debug)]
pub struct Collectives {
    ranks: usize,
    /// The scope of each collective, by its index: 0 for all ranks, else the size of a group.
    scopes: Vec<u64>,
    /// The teams of each scope.
    teams: BTreeMap<u64, Vec<Team>>,
    /// What ranks compare at start.
    announced: Vec<AtomicU64>,
}

impl Collectives {
    /// The teams that `model` needs with `ranks` ranks, which must be a multiple of every group's size; `spin` as in
    /// [`Barrier::new`].
    pub fn new(model: &Model, ranks: usize, spin: bool) -> Self {
        let scopes: Vec<u64> = model
            .collectives
            .iter()
            .map(|collective| collective.group)
            .collect();
        let mut teams = BTreeMap::from([(0, vec![Team::new(ranks, spin)])]);
        for &group in &scopes {
            teams.entry(group).or_insert_with(|| {
                let size = group as usize;
                (0..ranks / size).map(|_| Team::new(size, spin)).collect()
            });
        }
        Collectives {
            ranks,
            scopes,
            teams,
            announced: (0..ranks).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// Ends all collectives, because a rank failed.
    pub fn poison(&self) {
        self.teams.values().flatten().for_each(Team::poison);
    }

    /// Compares `hash` with the other ranks', so that ranks whose collectives differ stop before the first.
    pub fn agree_on_schedule(&self, rank: usize, hash: u64) -> Result<()> {
        self.announced[rank].store(hash, Ordering::Release);
        self.team(0, rank)
            .0
            .barrier()
            .map_err(|failure| describe(&failure))?;
        let first = self.announced[0].load(Ordering::Acquire);
        if self
            .announced
            .iter()
            .any(|other| other.load(Ordering::Acquire) != first)
        {
            return Err(Error::internal(format!(
                "rank {rank} has a schedule of collectives ({hash:016x}) other than rank 0 ({first:016x})"
            )));
        }
        Ok(())
    }

    /// The team of `rank` in `scope`, and the rank's index in it.
    fn team(&self, scope: u64, rank: usize) -> (&Team, usize) {
        let size = if scope == 0 { self.ranks } else { scope as usize };
        (&self.teams[&scope][rank / size], rank % size)
    }
}

/// A rank's failed collective as an error. The error of a poisoned one is replaced by the failing rank's.
fn describe(failure: &Failure) -> Error {
    match failure {
        Failure::Poisoned => Error::new(crate::error::Kind::RankDied, "another rank failed"),
        Failure::Mismatch(text) => Error::internal(text.clone()),
    }
}

/// What [`syncbn_abi::StepArguments::context`] points to: one rank's view of the run.
#[derive(Debug)]
pub struct Context {
    /// This rank.
    pub rank: usize,
    threads: usize,
    /// Where the rank's threads meet between kernels.
    between: Barrier,
    collectives: Arc<Collectives>,
    executed: AtomicU64,
    /// Why the last runtime call failed.
    failure: Mutex<Option<Error>>,
    trace: Trace,
}

impl Context {
    /// The context of `rank`, which has so many threads; `spin` as in [`Barrier::new`].
    pub fn new(
        rank: usize,
        (threads, spin): (usize, bool),
        collectives: Arc<Collectives>,
        element_type: ElementType,
    ) -> Self {
        Context {
            rank,
            threads,
            between: Barrier::new(u32::try_from(threads).unwrap_or(u32::MAX), spin),
            collectives,
            executed: AtomicU64::new(0),
            failure: Mutex::new(None),
            trace: Trace::new(element_type),
        }
    }

    /// Threads of the rank.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Ends the rank's threads where they meet, because one of them failed.
    pub(super) fn end_threads(&self) {
        self.between.poison();
    }

    /// The teams of the run.
    pub fn collectives(&self) -> &Collectives {
        &self.collectives
    }

    /// Collectives that this rank has executed.
    pub fn executed(&self) -> u64 {
        self.executed.load(Ordering::Relaxed)
    }

    /// The error behind a non-zero status of generated code.
    pub fn take_failure(&self) -> Option<Error> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// What is seen of the nodes of its steps.
    pub fn trace(&self) -> &Trace {
        &self.trace
    }

    fn fail(&self, error: Error) -> i32 {
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        1
    }

    /// # Safety
    /// As [`Team::all_reduce`].
    unsafe fn all_reduce(&self, collective: i64, segments: &[Segment]) -> Result<()> {
        let scope = usize::try_from(collective)
            .ok()
            .and_then(|index| self.collectives.scopes.get(index))
            .ok_or_else(|| Error::internal(format!("the model has no collective {collective}")))?;
        self.executed.fetch_add(1, Ordering::Relaxed);
        let (team, member) = self.collectives.team(*scope, self.rank);
        // SAFETY: passed on from the caller.
        unsafe { team.all_reduce(member, collective, segments) }.map_err(|failure| describe(&failure))
    }
}

/// [`syncbn_abi::symbols::ALL_REDUCE`].
///
/// # Safety
/// `context` is the one of the step's arguments, and `segments` points to `count` segments that are valid
/// for reads and writes and used by nobody else during the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn syncbn_rt_all_reduce(
    context: *mut c_void,
    collective: i64,
    segments: *const Segment,
    count: i64,
) -> i32 {
    // SAFETY: `context` came from `Rank::train` or `Rank::infer`, which made it of a `Context` that outlives the step.
    let context = unsafe { &*context.cast::<Context>() };
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let count = usize::try_from(count).map_err(|_| Error::internal("negative number of segments"))?;
        let segments = match count {
            0 => &[],
            // SAFETY: the caller passes `count` segments.
            _ => unsafe { std::slice::from_raw_parts(segments, count) },
        };
        // SAFETY: passed on from the caller.
        unsafe { context.all_reduce(collective, segments) }
    }));
    match outcome {
        Ok(Ok(())) => 0,
        Ok(Err(error)) => context.fail(error),
        Err(_) => context.fail(Error::internal("the all-reduce panicked")),
    }
}

/// [`syncbn_abi::symbols::TEAM_BARRIER`].
///
/// # Safety
/// `context` is the one of the step's arguments.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn syncbn_team_barrier(context: *mut c_void) -> i32 {
    // SAFETY: as in `syncbn_rt_all_reduce`.
    let context = unsafe { &*context.cast::<Context>() };
    i32::from(context.between.wait().is_err())
}

/// [`syncbn_abi::symbols::TRACE`]: notes the node if the output holds a value that is not finite.
///
/// # Safety
/// `context` is the one of the step's arguments, and `data` points to `elements` elements of the type that
/// `output` says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn syncbn_rt_trace(
    context: *mut c_void,
    node: i64,
    output: i64,
    data: *const c_void,
    elements: i64,
) {
    // SAFETY: as in `syncbn_rt_all_reduce`.
    let context = unsafe { &*context.cast::<Context>() };
    let Ok(elements) = usize::try_from(elements) else {
        return;
    };
    if elements == 0 || data.is_null() {
        return;
    }
    let trace = &context.trace;
    if trace.lap(node) {
        return;
    }
    let bytes = elements * trace.element_type(output).bytes() as usize;
    // SAFETY: the caller passes `elements` elements of this type.
    let bytes = unsafe { std::slice::from_raw_parts(data.cast::<u8>(), bytes) };
    trace.inspect(node, output, bytes);
}
