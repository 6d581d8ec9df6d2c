//! Captures and graphs.

use std::ffi::{c_int, c_void};

use crate::{
    call::{CAPTURING, Then, call},
    export::{export, give},
    plant,
    rule::Rule,
    state::Kind,
    status,
    work::Work,
};

type Handle = *mut c_void;

/// `CU_STREAM_CAPTURE_MODE_THREAD_LOCAL`: other threads go on, which those of NCCL and of the project do.
const THREAD_LOCAL: c_int = 1;

export! {
    /// Begins a capture.
    fn cuStreamBeginCapture_v2(stream: Handle, mode: c_int) {
        call("cuStreamBeginCapture_v2", |state| {
            let stream = state.find(Kind::Stream, stream)?;
            if mode != THREAD_LOCAL {
                state.violation(Rule::Argument, "the capture is not thread-local");
            }
            state.begin_capture(stream).map(|()| Then::Return)
        })
    }

    /// Ends a capture.
    fn cuStreamEndCapture(stream: Handle, graph: *mut Handle) {
        let capture = CAPTURING.get();
        let status = call("cuStreamEndCapture", |state| {
            let stream = state.find(Kind::Stream, stream)?;
            give(state, graph, std::ptr::null_mut())?;
            let work = state.end_capture(stream)?;
            if state.fails {
                return Ok(Then::Return);
            }
            let kernels = work.iter().filter(|work| matches!(work, Work::Kernel { .. })).count();
            let collectives = work.iter().filter(|work| matches!(work, Work::Reduce(_))).count();
            state.log.line(&format!("GRAPH kernels={kernels} collectives={collectives} nodes={}", work.len()));
            let handle = state.handle(Kind::Graph);
            state.graphs.insert(handle, work.into());
            give(state, graph, handle as Handle).map(|()| Then::Return)
        });
        plant::after_capture(stream, capture);
        status
    }

    /// Makes a graph executable.
    fn cuGraphInstantiateWithFlags(executable: *mut Handle, graph: Handle, flags: u64) {
        call("cuGraphInstantiateWithFlags", |state| {
            let graph = state.find(Kind::Graph, graph)?;
            if flags != 0 {
                state.violation(Rule::Argument, "flags are 0");
            }
            let work = state.graphs.get(&graph).cloned().unwrap_or_default();
            let handle = state.handle(Kind::Executable);
            state.executables.insert(handle, work);
            give(state, executable, handle as Handle).map(|()| Then::Return)
        })
    }

    /// Gives a stream the work of a graph.
    fn cuGraphLaunch(executable: Handle, stream: Handle) {
        plant::before_replay(executable as u64);
        call("cuGraphLaunch", |state| {
            let executable = state.find(Kind::Executable, executable)?;
            let stream = state.find(Kind::Stream, stream)?;
            let work = state.executables.get(&executable).cloned().unwrap_or_default();
            for work in work.iter() {
                if !state.is_usable(work, Rule::GraphMemory) {
                    return Err(status::ILLEGAL_ADDRESS);
                }
            }
            for work in work.iter() {
                state.enqueue_checked(stream, work.clone())?;
            }
            Ok(Then::Return)
        })
    }

    /// Destroys an executable graph.
    fn cuGraphExecDestroy(executable: Handle) {
        if plant::is("communicator-first") {
            return status::SUCCESS;
        }
        call("cuGraphExecDestroy", |state| {
            let executable = state.find(Kind::Executable, executable)?;
            state.executables.remove(&executable);
            state.end_handle(executable);
            Ok(Then::Return)
        })
    }

    /// Destroys a graph.
    fn cuGraphDestroy(graph: Handle) {
        call("cuGraphDestroy", |state| {
            let graph = state.find(Kind::Graph, graph)?;
            state.graphs.remove(&graph);
            state.end_handle(graph);
            Ok(Then::Return)
        })
    }
}
