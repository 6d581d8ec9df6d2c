//! Schedules that the user names.

use std::str::FromStr;

use syncbn_ir::{Graph, NodeId, Op, Schedule};

use crate::error::{Fault, Faults, PassError};
use crate::options::{Mode, Options};
use crate::pass::Changes;

/// A schedule for a node: `stem=direct(lanes = 16, pixels = 8, vectors = 2, rows = 1)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Override {
    /// The node's label, which all directions of a convolution share; or operator and label, such as
    /// `conv_backward_data stem`.
    pub node: String,
    /// How it is computed.
    pub schedule: Schedule,
}

impl FromStr for Override {
    type Err = String;

    fn from_str(text: &str) -> Result<Override, String> {
        // Labels may hold `=` too, so the first one behind which a schedule stands counts.
        let mut error = None;
        for (at, _) in text.match_indices('=') {
            match text[at + 1..].parse() {
                Ok(schedule) if at > 0 => {
                    let node = text[..at].to_string();
                    return Ok(Override { node, schedule });
                }
                Ok(_) => {}
                Err(e) => error = error.or(Some(e)),
            }
        }
        let form =
            "expected NODE=SCHEDULE, such as stem=direct(lanes = 16, pixels = 8, vectors = 2, rows = 1)";
        Err(match error {
            Some(error) => format!("{}; {form}", error.message),
            None => form.to_string(),
        })
    }
}

impl Override {
    fn is_of(&self, graph: &Graph, id: NodeId) -> bool {
        let node = graph.node(id);
        node.name == self.node || self.node.strip_prefix(node.op.name()) == Some(&format!(" {}", node.name))
    }

    /// Whether it names an operator that only training has.
    fn is_of_training(&self) -> bool {
        self.node.starts_with("conv_backward")
    }
}

/// Gives nodes the schedules that the options name. A label without an operator is for all of its nodes that can be
/// computed so.
pub fn apply(graph: &mut Graph, options: &Options) -> Result<Changes, PassError> {
    let mut faults = Faults::default();
    let mut changes = 0;
    for wanted in &options.schedules {
        let schedule = wanted.schedule;
        let nodes: Vec<NodeId> = graph.nodes().filter(|&id| wanted.is_of(graph, id)).collect();
        if nodes.is_empty() && options.mode == Mode::Infer && wanted.is_of_training() {
            continue;
        }
        let (mut reason, mut found) = (None, false);
        for id in nodes {
            let (operands, results) = graph.types(id);
            let is_of_target = schedule
                .is_for_gpus()
                .is_none_or(|gpu| gpu == options.target.machine.is_none());
            if !is_of_target {
                let other = if options.target.machine.is_none() {
                    "processors"
                } else {
                    "GPUs"
                };
                reason = reason.or(Some(format!("it is for {other}")));
                continue;
            }
            match schedule.fits(graph.op(id), &operands, &results) {
                Ok(()) if schedule == Schedule::General && !is_scheduled(graph.op(id)) => {}
                Ok(()) => {
                    found = true;
                    changes += usize::from(graph.schedule(id) != Some(schedule));
                    graph.set_schedule(id, Some(schedule));
                }
                Err(message) if is_scheduled(graph.op(id)) => reason = reason.or(Some(message)),
                Err(_) => {}
            }
        }
        if !found {
            faults.push(refusal(graph, wanted, reason));
        }
    }
    faults.check()?;
    Ok(changes)
}

/// Refuses schedules where there is no machine whose code follows them.
pub fn check_none(options: &Options) -> Result<(), PassError> {
    let mut faults = Faults::default();
    for wanted in &options.schedules {
        let fault =
            Fault::user("schedules are for a processor's or GPU's code, and no processor or GPU is given");
        faults.push(
            fault
                .at(place(wanted))
                .help("give one, as --machine and --gpu do, or leave the schedule out"),
        );
    }
    faults.check()
}

/// Whether an operator has other forms than the general one.
fn is_scheduled(op: &Op) -> bool {
    matches!(
        op,
        Op::Conv(_) | Op::ConvBackwardData(_) | Op::ConvBackwardWeight(_) | Op::MatMul(_)
    )
}

fn refusal(graph: &Graph, wanted: &Override, reason: Option<String>) -> Fault {
    if let Some(reason) = reason {
        let message = format!("schedule {} does not fit: {reason}", wanted.schedule);
        return Fault::user(message)
            .at(place(wanted))
            .help("--emit schedule lists what fits");
    }
    let nodes = graph.nodes().filter(|&id| is_scheduled(graph.op(id)));
    let mut names: Vec<String> = Vec::new();
    for name in nodes.map(|id| format!("\"{}\"", graph.node(id).name)) {
        if names.len() < 8 && !names.contains(&name) {
            names.push(name);
        }
    }
    let message = "no convolution and no matrix product has this name";
    let known = format!("--emit schedule lists all; the first are {}", names.join(", "));
    Fault::user(message).at(place(wanted)).help(known)
}

fn place(wanted: &Override) -> String {
    format!("--schedule \"{}\"", wanted.node)
}
