//! Runs passes: verifies before and after each, times it, and shows the graph where that was asked for.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use syncbn_ir::Graph;

use crate::error::PassError;
use crate::pass::{Changes, Pass, PassContext};
use crate::pipelines::{check_name, expand};

/// After which passes the graph is shown.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum PrintAfter {
    /// None.
    #[default]
    Nothing,
    /// These.
    Passes(Vec<String>),
    /// All.
    All,
}

/// Which passes run, and what is shown of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Selection {
    /// Passes and pipelines, in order.
    pub passes: Vec<String>,
    /// Passes that are left out.
    pub skip: Vec<String>,
    /// The last pass that runs.
    pub stop_after: Option<String>,
    /// After which passes the graph is shown.
    pub print_ir_after: PrintAfter,
}

impl Selection {
    /// Exactly these passes and pipelines.
    pub fn of(passes: &[&str]) -> Selection {
        Selection {
            passes: passes.iter().map(|p| p.to_string()).collect(),
            ..Selection::default()
        }
    }

    fn list(&self) -> Result<Vec<&'static dyn Pass>, PassError> {
        let shown = match &self.print_ir_after {
            PrintAfter::Passes(names) => names.as_slice(),
            PrintAfter::Nothing | PrintAfter::All => &[],
        };
        for name in self.skip.iter().chain(&self.stop_after).chain(shown) {
            check_name(name)?;
        }
        let mut list = expand(&self.passes)?;
        list.retain(|p| !self.skip.iter().any(|s| s == p.name()));
        if let Some(last) = &self.stop_after {
            match list.iter().rposition(|p| p.name() == last) {
                Some(i) => list.truncate(i + 1),
                None => {
                    return Err(PassError::User(format!(
                        "--stop-after names pass {last}, which does not run"
                    )));
                }
            }
        }
        Ok(list)
    }

    fn shows(&self, pass: &str) -> bool {
        match &self.print_ir_after {
            PrintAfter::Nothing => false,
            PrintAfter::Passes(names) => names.iter().any(|n| n == pass),
            PrintAfter::All => true,
        }
    }
}

/// What one pass did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PassRun {
    /// Its name.
    pub name: &'static str,
    /// How often it changed the graph.
    pub changes: Changes,
    /// How long it took, without verification.
    pub time: Duration,
}

/// Runs the selected passes. `show` receives a pass's name and the text of the graph after it.
pub fn run_passes(
    graph: &mut Graph,
    selection: &Selection,
    cx: &mut PassContext,
    show: &mut dyn FnMut(&str, &str),
) -> Result<Vec<PassRun>, PassError> {
    let list = selection.list()?;
    let errors = verify(graph);
    if !errors.is_empty() {
        return Err(PassError::Invalid(errors));
    }
    let mut runs = Vec::with_capacity(list.len());
    for pass in list {
        runs.push(run_pass(graph, pass, cx)?);
        if selection.shows(pass.name()) {
            show(pass.name(), &syncbn_ir::print(graph));
        }
    }
    Ok(runs)
}

fn run_pass(graph: &mut Graph, pass: &'static dyn Pass, cx: &mut PassContext) -> Result<PassRun, PassError> {
    let name = pass.name();
    let start = Instant::now();
    let result = pass.run(graph, cx);
    let time = start.elapsed();
    let changes = match result {
        Ok(changes) => changes,
        Err(error) if error.is_internal() => return Err(broke(graph, name, vec![error.to_string()])),
        Err(error) => return Err(error),
    };
    let errors = verify(graph);
    if !errors.is_empty() {
        return Err(broke(graph, name, errors));
    }
    tracing::debug!(pass = name, changes, ?time, nodes = graph.len());
    Ok(PassRun { name, changes, time })
}

fn verify(graph: &Graph) -> Vec<String> {
    match syncbn_ir::verify(graph) {
        Ok(()) => Vec::new(),
        Err(errors) => errors.iter().map(|e| e.to_string()).collect(),
    }
}

fn broke(graph: &Graph, pass: &'static str, errors: Vec<String>) -> PassError {
    let path: PathBuf = std::env::temp_dir().join(format!("syncbn-{pass}-{}.ir", std::process::id()));
    let written = std::fs::write(&path, syncbn_ir::print(graph));
    PassError::Broke {
        pass,
        errors,
        dump: written.is_ok().then_some(path),
    }
}
