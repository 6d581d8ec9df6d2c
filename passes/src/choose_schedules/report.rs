//! What `--emit schedule` writes: each node's candidates, with what is predicted of them, and the one chosen.

use std::fmt::Write;

use syncbn_ir::{Graph, GraphError, Schedule};

use super::Problem;
use crate::options::Options;

/// The report on a graph whose schedules are chosen.
pub fn schedule_report(graph: &Graph, options: &Options) -> Result<String, GraphError> {
    let mut text = format!("schedules of {}, batch {}\n", graph.name, options.batch_bound);
    let Some(machine) = options.target.machine else {
        text += "  every node has the general form: no processor is given\n";
        return Ok(text);
    };
    let mut total = 0.0;
    for id in graph.topological()? {
        let Some(problem) = Problem::of(graph, id, machine, options) else {
            continue;
        };
        let node = graph.node(id);
        let (operands, results) = graph.types(id);
        let types: Vec<String> = operands.iter().map(ToString::to_string).collect();
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{} \"{}\": {} -> {}",
            node.op.name(),
            node.name,
            types.join(", "),
            results.first().map(ToString::to_string).unwrap_or_default()
        );
        let chosen = node.schedule.unwrap_or(Schedule::General);
        let mut candidates = problem.candidates(true);
        if !candidates.iter().any(|(schedule, _)| *schedule == chosen)
            && let Some(cost) = problem.cost(&chosen)
        {
            candidates.push((chosen, cost));
        }
        for (schedule, cost) in &candidates {
            let microseconds = cost.seconds(&machine) * 1e6;
            let workspace = schedule.workspace(&node.op, &operands, &results, options.batch_bound);
            let mark = if *schedule == chosen { '*' } else { ' ' };
            let gain = problem.gain(schedule).map_or_else(String::new, |gain| {
                format!(
                    ", {:.2} times as fast as without, taken from {:.2} on",
                    gain.predicted, gain.least
                )
            });
            let _ = writeln!(
                text,
                "  {mark} {microseconds:10.1} us {:10.0} cycles {:8.1} KiB, workspace {:8.1} KiB  {schedule}{gain}",
                cost.cycles,
                cost.bytes / 1024.0,
                workspace as f64 / 1024.0,
            );
            if *schedule == chosen {
                total += microseconds;
            }
        }
        if chosen == Schedule::General {
            text += "  *  not predicted  general\n";
        }
    }
    let _ = writeln!(text, "predicted in all: {total:.1} us on one core");
    Ok(text)
}
