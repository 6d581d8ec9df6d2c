//! What the stand-in knows of the process.

use std::{
    collections::{BTreeMap, VecDeque},
    ffi::{c_int, c_void},
    sync::Arc,
};

use crate::{
    arena::Arena,
    capture::Capture,
    image::Kernel,
    log::Log,
    nccl::Communicator,
    rule::Rule,
    settings::Settings,
    status,
    work::{Queued, Work},
};

/// Handles are numbers that are no addresses, a multiple of this from [`FIRST_HANDLE`] on.
const HANDLE_STEP: u64 = 64;
const FIRST_HANDLE: u64 = 0x5c00_0000_0000_0000;

/// What a handle is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `CUcontext`
    Context,
    /// `CUstream`
    Stream,
    /// `CUevent`
    Event,
    /// `CUmodule`
    Module,
    /// `CUfunction`
    Function,
    /// `CUgraph`
    Graph,
    /// `CUgraphExec`
    Executable,
    /// `ncclComm_t`
    Communicator,
}

/// A stream.
#[derive(Debug, Default)]
pub struct Stream {
    /// What is not done yet.
    pub queue: VecDeque<Queued>,
    /// Number of pieces of work that are done.
    pub done: u64,
    /// The capture that it takes part in.
    pub capture: Option<u64>,
    /// Number of times that it was asked whether it is idle.
    pub queries: u64,
}

impl Stream {
    /// Number of pieces of work that it was given.
    pub fn enqueued(&self) -> u64 {
        self.done + self.queue.len() as u64
    }
}

/// Where an event lies.
#[derive(Debug, Clone)]
pub enum Point {
    /// It was never recorded.
    Nowhere,
    /// After so much work of a stream.
    Stream(u64, u64),
    /// In a capture, after these pieces.
    Captured(u64, Vec<usize>),
}

/// The state.
#[derive(Debug)]
pub struct State {
    /// From the environment.
    pub settings: Settings,
    /// The log.
    pub log: Log,
    /// The function that is called.
    pub function: &'static str,
    /// The call ends something and then returns an injected failure: it gives nothing.
    pub fails: bool,
    /// `cuInit` was called.
    pub initialised: bool,
    /// Device memory.
    pub device: Arena,
    /// Pinned memory.
    pub pinned: Arena,
    /// Contexts: device, and how often each is retained.
    pub contexts: BTreeMap<u64, (c_int, u64)>,
    /// Streams, destroyed ones too, whose work goes on.
    pub streams: BTreeMap<u64, Stream>,
    /// Events.
    pub events: BTreeMap<u64, Point>,
    /// Modules: their kernels.
    pub modules: BTreeMap<u64, Vec<Kernel>>,
    /// Functions: module, kernel, and the shared memory that it was allowed.
    pub functions: BTreeMap<u64, (u64, Kernel, u32)>,
    /// Captures, ended ones too.
    pub captures: BTreeMap<u64, Capture>,
    /// Graphs.
    pub graphs: BTreeMap<u64, Arc<[Work]>>,
    /// Executable graphs.
    pub executables: BTreeMap<u64, Arc<[Work]>>,
    /// Communicators.
    pub communicators: BTreeMap<u64, Communicator>,
    /// All-reduces so far.
    pub reduced: u64,
    handles: BTreeMap<u64, (Kind, bool)>,
    numbers: u64,
    calls: BTreeMap<&'static str, u64>,
}

impl Default for State {
    fn default() -> Self {
        let settings = Settings::read(|name| std::env::var(name).ok());
        let log = Log::new(settings.log.clone(), settings.rank.clone());
        let mut state = State {
            settings,
            log,
            function: "",
            fails: false,
            initialised: false,
            device: Arena::default(),
            pinned: Arena::default(),
            contexts: BTreeMap::new(),
            streams: BTreeMap::new(),
            events: BTreeMap::new(),
            modules: BTreeMap::new(),
            functions: BTreeMap::new(),
            captures: BTreeMap::new(),
            graphs: BTreeMap::new(),
            executables: BTreeMap::new(),
            communicators: BTreeMap::new(),
            reduced: 0,
            handles: BTreeMap::new(),
            numbers: 0,
            calls: BTreeMap::new(),
        };
        for text in state.settings.malformed.clone() {
            state.violation(Rule::Setting, &text);
        }
        state
    }
}

impl State {
    /// Notes a broken rule.
    pub fn violation(&mut self, rule: Rule, text: &str) {
        self.log.violation(rule, self.function, text);
    }

    /// Notes a broken rule and gives the status that the call returns.
    pub fn refuse<T>(&mut self, rule: Rule, text: &str, status: c_int) -> Result<T, c_int> {
        self.violation(rule, text);
        Err(status)
    }

    /// Counts a call; its number, from 1.
    pub fn count(&mut self, function: &'static str) -> u64 {
        let count = self.calls.entry(function).or_default();
        *count += 1;
        *count
    }

    /// A number that was not given before, from 1.
    pub fn next_number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    /// A new handle.
    pub fn handle(&mut self, kind: Kind) -> u64 {
        let handle = FIRST_HANDLE + HANDLE_STEP * self.next_number();
        self.handles.insert(handle, (kind, true));
        handle
    }

    /// The living thing of a kind that a handle names.
    pub fn find(&mut self, kind: Kind, handle: *mut c_void) -> Result<u64, c_int> {
        let handle = handle as u64;
        let invalid = match kind {
            Kind::Communicator => status::NCCL_INVALID_ARGUMENT,
            _ => status::INVALID_HANDLE,
        };
        match self.handles.get(&handle).copied() {
            Some((found, true)) if found == kind => Ok(handle),
            Some((found, false)) if found == kind => {
                self.refuse(Rule::DeadHandle, &format!("the {kind:?} was destroyed"), invalid)
            }
            Some((found, _)) => self.refuse(
                Rule::Handle,
                &format!("a {found:?} in place of a {kind:?}"),
                invalid,
            ),
            None => {
                let text = format!("{handle:#x} is no handle of a {kind:?}");
                self.refuse(Rule::Handle, &text, invalid)
            }
        }
    }

    /// Ends what a handle names.
    pub fn end_handle(&mut self, handle: u64) {
        if let Some((_, alive)) = self.handles.get_mut(&handle) {
            *alive = false;
        }
    }

    /// Notes what still lives, beside contexts.
    pub fn find_leaks(&mut self) {
        let mut found: Vec<(String, usize)> = vec![
            ("allocations".to_string(), self.device.allocations()),
            ("pinned allocations".to_string(), self.pinned.allocations()),
        ];
        for kind in [
            Kind::Stream,
            Kind::Event,
            Kind::Module,
            Kind::Graph,
            Kind::Executable,
            Kind::Communicator,
        ] {
            let living = self.handles.values().filter(|known| **known == (kind, true));
            found.push((format!("{kind:?} handles"), living.count()));
        }
        for (what, count) in found.into_iter().filter(|(_, count)| *count > 0) {
            self.violation(Rule::Leak, &format!("{count} {what} live on"));
        }
    }

    /// The process ends: the log's last line.
    pub fn end(&mut self) {
        if !self.log.has_begun() {
            return;
        }
        self.function = "exit";
        if !self.contexts.is_empty() {
            self.violation(Rule::Leak, "the context is not released");
        }
        let mut line = format!(
            "END violations={} collectives={}",
            self.log.violations, self.reduced
        );
        for (function, count) in &self.calls {
            line.push_str(&format!(" {function}={count}"));
        }
        self.log.line(&line);
    }
}
