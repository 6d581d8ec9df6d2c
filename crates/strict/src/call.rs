//! What all calls have in common: counts, injections, what must have been done before, waiting.

use std::{
    cell::Cell,
    ffi::c_int,
    sync::{LazyLock, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use crate::{
    function::{FUNCTIONS, Function, Needs},
    rule::Rule,
    settings::Injected,
    state::State,
    status,
};

/// How often a call that waits looks.
const PAUSE: Duration = Duration::from_micros(100);
/// Exit code of an injected death.
const DEATH: c_int = 77;

static STATE: LazyLock<Mutex<State>> = LazyLock::new(|| {
    // SAFETY: the function takes nothing and may be called at the process's end.
    unsafe { libc::atexit(end) };
    Mutex::new(State::default())
});

thread_local! {
    /// The current context, 0 for none.
    pub static CURRENT: Cell<u64> = const { Cell::new(0) };
    /// The capture that this thread began, 0 for none.
    pub static CAPTURING: Cell<u64> = const { Cell::new(0) };
    /// Depth of the groups of NCCL's calls.
    pub static GROUPS: Cell<u32> = const { Cell::new(0) };
}

/// A wait: None until it is over, then the status.
pub type Poll = Box<dyn FnMut(&mut State) -> Option<c_int>>;

/// How a call goes on once it was accepted.
pub enum Then {
    /// It returns success.
    Return,
    /// It waits.
    Wait(Poll),
}

/// What a call comes to; the error is its status.
pub type Outcome = Result<Then, c_int>;

/// The state of the process.
pub fn state() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes a call of an exported function.
pub fn call(name: &'static str, body: impl FnOnce(&mut State) -> Outcome) -> c_int {
    let Some(function) = FUNCTIONS.iter().find(|function| function.name == name) else {
        return status::INVALID_VALUE;
    };
    let mut state = state();
    state.function = name;
    let number = state.count(name);
    match state.settings.injected(name, number) {
        None => {}
        Some(Injected::Failure) => {
            let captured = if CAPTURING.get() == 0 { "" } else { " captured" };
            state.log.line(&format!("FAILURE {name} {number}{captured}"));
            if !function.ends {
                return function.failure();
            }
            state.fails = true;
            let _ = make(state, name, body);
            return function.failure();
        }
        Some(Injected::Hang) => {
            state.log.line(&format!("HANG {name} {number}"));
            drop(state);
            loop {
                thread::sleep(Duration::from_secs(60));
            }
        }
        Some(Injected::Death) => {
            state.log.line(&format!("DEATH {name} {number}"));
            // SAFETY: ends the process.
            unsafe { libc::_exit(DEATH) }
        }
    }
    make(state, name, |state| {
        accept(state, function).and_then(|()| body(state))
    })
}

/// Does what a call does, and waits for what it waits for.
fn make(
    mut state: MutexGuard<'static, State>,
    name: &'static str,
    body: impl FnOnce(&mut State) -> Outcome,
) -> c_int {
    let outcome = body(&mut state);
    state.fails = false;
    let mut poll = match outcome {
        Ok(Then::Return) => return status::SUCCESS,
        Ok(Then::Wait(poll)) => poll,
        Err(status) => return status,
    };
    loop {
        state.function = name;
        if let Some(status) = poll(&mut state) {
            return status;
        }
        drop(state);
        thread::sleep(PAUSE);
        state = self::state();
    }
}

/// Refuses a call that may not be made now.
fn accept(state: &mut State, function: &Function) -> Result<(), c_int> {
    if function.needs >= Needs::Initialised && !state.initialised {
        state.violation(Rule::NotInitialised, "cuInit was not called");
        return Err(status::NOT_INITIALIZED);
    }
    if function.needs >= Needs::Context && !state.contexts.contains_key(&CURRENT.get()) {
        state.violation(Rule::NoContext, "the thread has no current context");
        return Err(status::INVALID_CONTEXT);
    }
    if !function.in_capture && CAPTURING.get() != 0 {
        state.violation(Rule::CallInCapture, "the thread captures");
        state.invalidate(CAPTURING.get());
        return Err(status::CAPTURE_UNSUPPORTED);
    }
    Ok(())
}

/// The process ends.
extern "C" fn end() {
    // The thread that holds the state may be gone.
    if let Ok(mut state) = STATE.try_lock() {
        state.end();
    }
}
