//! Calls as captured graphs, and what ranks agree on for that.

use super::{
    Call, GpuExecution,
    graphs::{Graphs, Way},
};
use crate::{
    error::{Error, Result},
    gpu::device::Replay,
    report,
};

/// Who has to capture for a graph to be replayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    /// Every rank, as the call has collectives.
    Run,
    /// This rank.
    Rank,
}

impl GpuExecution {
    /// Makes a call, as a graph of `graphs` under `key` where there is one. Returns when everything is enqueued.
    pub(super) fn call_captured<K: PartialEq + Clone>(
        &self,
        graphs: &Graphs<K>,
        key: &K,
        scope: Scope,
        call: &Call,
    ) -> Result<()> {
        let way = graphs.next(key.clone());
        if way == Way::Capture {
            let graph = self.capture(call);
            match self.agree_on(scope, graph)? {
                Ok(graph) => graphs.keep(key, graph),
                Err(cause) => {
                    graphs.give_up();
                    if scope == Scope::Rank || self.seat.rank == 0 {
                        // The launcher says it of other ranks.
                        let alone = scope == Scope::Rank && self.ranks > 1 && self.seat.rank == 0;
                        let place = if alone { " on rank 0" } else { "" };
                        report::note(&format!("{} runs without CUDA graphs{place}: {cause}", call.what));
                    }
                }
            }
        }
        if way != Way::Direct && graphs.replay(key).map_err(|error| self.explain(error))? {
            return Ok(());
        }
        self.enqueue(call)
    }

    /// Captures a call. The gradients' stream takes part from the beginning, as generated code may wait for it
    /// before it gives it work.
    fn capture(&self, call: &Call) -> Result<Box<dyn Replay>> {
        self.device.capture(self.stream, &mut || {
            self.device.wait(self.gradient_stream, self.stream)?;
            self.enqueue(call)?;
            self.device.wait(self.stream, self.gradient_stream)
        })
    }

    /// The graph if all ranks have one, else why not. The outer error ends the run. Called by all ranks if `scope` is
    /// the run.
    fn agree_on(
        &self,
        scope: Scope,
        graph: Result<Box<dyn Replay>>,
    ) -> Result<Result<Box<dyn Replay>, String>> {
        let own = graph.as_ref().err().map(|error| error.message.clone());
        let Some(control) = self.control().filter(|_| scope == Scope::Run) else {
            return Ok(graph.map_err(|error| error.message));
        };
        // Nothing stands for a graph.
        let causes = control.gather(own.unwrap_or_default().into_bytes())?;
        let failed = causes.iter().position(|cause| !cause.is_empty());
        let verdict = failed.map_or(String::new(), |rank| {
            let cause = String::from_utf8_lossy(&causes[rank]);
            format!("capturing failed on rank {rank}: {cause}")
        });
        let verdict = control.broadcast(verdict.into_bytes())?;
        let verdict = String::from_utf8_lossy(&verdict).into_owned();
        match graph {
            Ok(graph) if verdict.is_empty() => Ok(Ok(graph)),
            Err(error) if verdict.is_empty() => Err(Error::internal(format!(
                "rank 0 did not learn that capturing failed: {error}"
            ))),
            _ => Ok(Err(verdict)),
        }
    }
}
