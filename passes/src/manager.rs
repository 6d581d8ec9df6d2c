//! Runs passes: verifies before and after each, times it, and shows the graph where that was asked for.

use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use syncbn_ir::{Graph, VerifyError};

use crate::error::{Fault, Faults, PassError};
use crate::options::Mode;
use crate::pass::{Changes, Pass, PassContext};
use crate::pipelines::{check_name, expand};
use crate::plan_memory::Layout;

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

    /// The passes that run, in order, or all names that mean nothing.
    pub fn list(&self) -> Result<Vec<&'static dyn Pass>, PassError> {
        let shown = match &self.print_ir_after {
            PrintAfter::Passes(names) => names.as_slice(),
            PrintAfter::Nothing | PrintAfter::All => &[],
        };
        let mut faults = Faults::default();
        let list = faults.keep(expand(&self.passes))?;
        let last = self.stop_after.as_slice();
        for (flag, names) in [
            ("--skip", self.skip.as_slice()),
            ("--stop-after", last),
            ("--print-ir-after", shown),
        ] {
            for name in names {
                faults.keep(check_name(flag, name))?;
            }
        }
        let mut list = list.unwrap_or_default();
        list.retain(|p| !self.skip.iter().any(|s| s == p.name()));
        if let Some(last) = &self.stop_after {
            match list.iter().rposition(|p| p.name() == last) {
                Some(i) => list.truncate(i + 1),
                // Where names are wrong, which passes run is not known.
                None => faults.push_if_first(
                    Fault::user(format!("pass {last} does not run"))
                        .at(format!("--stop-after {last}"))
                        .help(
                            "name a pass that --passes lists and --skip does not, or choose another --mode",
                        ),
                ),
            }
        }
        faults.check()?;
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

impl fmt::Display for PassRun {
    /// Name, changes and time, on one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = self.time.as_secs_f64() * 1e3;
        write!(f, "{}: {} changes, {time:.1} ms", self.name, self.changes)
    }
}

/// Runs the selected passes. `show` receives a pass's name and the text of the graph after it.
///
/// Where inference is given no layout, it takes the tensors of the network as it comes, so that running statistics
/// which its passes no longer need keep their place in weight files.
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
    if cx.options.mode == Mode::Infer && cx.layout.is_none() {
        let mut live = graph.clone();
        live.remove_dead();
        cx.network = Some(Layout::of(&live)?);
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
        return Err(broke(graph, name, errors.iter().map(|e| e.to_string()).collect()));
    }
    tracing::debug!(pass = name, changes, ?time, nodes = graph.len());
    Ok(PassRun { name, changes, time })
}

fn verify(graph: &Graph) -> Vec<VerifyError> {
    syncbn_ir::verify(graph).err().unwrap_or_default()
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

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"graph "g" {
  %x = input "x" data : f32[batch, 2]
  %a = identity(%x) : f32[batch, 2]
  %y = unary(%a) {function = relu} : f32[batch, 2]
  return output "y" %y
}"#;

    struct Breaks;

    impl Pass for Breaks {
        fn name(&self) -> &'static str {
            "breaks"
        }
        fn summary(&self) -> &'static str {
            "lets a result lie about its type"
        }
        fn run(&self, graph: &mut Graph, _: &mut PassContext) -> Result<Changes, PassError> {
            for id in graph.nodes().collect::<Vec<_>>() {
                graph.node_mut(id).outputs[0].ty.dtype = syncbn_ir::DType::F64;
            }
            Ok(1)
        }
    }

    fn run(selection: &Selection) -> (Result<Vec<PassRun>, PassError>, Vec<String>) {
        let mut graph = syncbn_ir::parse(TEXT).unwrap();
        let mut shown = Vec::new();
        let mut show = |pass: &str, text: &str| shown.push(format!("{pass}: {text}"));
        let result = run_passes(&mut graph, selection, &mut PassContext::default(), &mut show);
        (result, shown)
    }

    #[test]
    fn a_pass_that_breaks_the_graph_is_named() {
        let mut graph = syncbn_ir::parse(TEXT).unwrap();
        let error = run_pass(&mut graph, &Breaks, &mut PassContext::default()).unwrap_err();
        assert!(error.is_internal());
        let PassError::Broke { dump: Some(path), .. } = &error else {
            panic!("{error}");
        };
        assert!(
            error
                .to_string()
                .starts_with("internal error: pass breaks broke the graph"),
            "{error}"
        );
        assert!(error.to_string().contains(&path.display().to_string()), "{error}");
        assert!(std::fs::read_to_string(path).unwrap().contains("identity"));
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_graph_that_is_broken_before_is_not_the_pass_s_fault() {
        let mut graph = syncbn_ir::parse(TEXT).unwrap();
        Breaks.run(&mut graph, &mut PassContext::default()).unwrap();
        let selection = Selection::of(&["canonicalize"]);
        let result = run_passes(
            &mut graph,
            &selection,
            &mut PassContext::default(),
            &mut |_, _| {},
        );
        assert!(matches!(result, Err(PassError::Invalid(_))), "{result:?}");
    }

    #[test]
    fn passes_are_skipped_and_stopped_and_shown() {
        let selection = Selection {
            skip: vec!["fold-constants".to_string()],
            stop_after: Some("recognize-composites".to_string()),
            print_ir_after: PrintAfter::All,
            ..Selection::of(&["train"])
        };
        let (result, shown) = run(&selection);
        let names: Vec<&str> = result.unwrap().iter().map(|r| r.name).collect();
        assert_eq!(names, ["canonicalize", "canonicalize", "recognize-composites"]);
        assert_eq!(shown.len(), 3);
        assert!(!shown[0].contains("identity"), "{}", shown[0]);
        let one = Selection {
            print_ir_after: PrintAfter::Passes(vec!["fold-constants".to_string()]),
            ..Selection::of(&["clean"])
        };
        assert_eq!(run(&one).1.len(), 1);
    }

    #[test]
    fn names_that_mean_nothing_are_refused() {
        for selection in [
            Selection::of(&["no-such-pass"]),
            Selection {
                skip: vec!["no-such-pass".to_string()],
                ..Selection::of(&["clean"])
            },
            Selection {
                stop_after: Some("no-such-pass".to_string()),
                ..Selection::of(&["clean"])
            },
            Selection {
                stop_after: Some("plan-memory".to_string()),
                ..Selection::of(&["clean"])
            },
        ] {
            let error = run(&selection).0.unwrap_err();
            assert!(!error.is_internal(), "{error}");
        }
    }

    #[test]
    fn every_pass_says_what_it_did() {
        let (result, _) = run(&Selection::of(&["canonicalize", "canonicalize"]));
        let changes: Vec<Changes> = result.unwrap().iter().map(|r| r.changes).collect();
        assert_eq!(changes, [1, 0]);
    }
}
