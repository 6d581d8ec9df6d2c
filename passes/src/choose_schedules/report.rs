//! What `--emit schedule` writes: each node's candidates, with what is predicted of them, and the one chosen.

use std::fmt::Write;

use syncbn_ir::schedule::{Convolution, ImplicitGemm};
use syncbn_ir::{Graph, GraphError, NodeId, Op, Schedule};

use super::gpu::Gpu;
use super::{Problem, implicit_gemm};
use crate::options::Options;

/// What a node computes.
fn heading(graph: &Graph, id: NodeId) -> String {
    let (node, (operands, results)) = (graph.node(id), graph.types(id));
    let types: Vec<String> = operands.iter().map(ToString::to_string).collect();
    format!(
        "{} \"{}\": {} -> {}\n",
        node.op.name(),
        node.name,
        types.join(", "),
        results.first().map(ToString::to_string).unwrap_or_default()
    )
}

/// [`schedule_report`] for a GPU: of each tile the number of parts that is best, and the schedule chosen.
fn on_gpu(graph: &Graph, options: &Options, gpu: &Gpu) -> Result<String, GraphError> {
    let precision = gpu.products.name();
    let mut text = format!(
        "schedules of {}, batch {}, on a GPU in {precision}\n",
        graph.name, options.batch_bound
    );
    let mut total = 0.0;
    for id in graph.topological()? {
        let (operands, results) = graph.types(id);
        let op = graph.op(id);
        if Convolution::of(op, &operands, &results).is_none() && !matches!(op, Op::MatMul(_)) {
            continue;
        }
        text += &heading(graph, id);
        let chosen = graph.schedule(id).unwrap_or(Schedule::General);
        let Some(gemm) = gpu.product(graph, id, options.batch_bound) else {
            let _ = writeln!(text, "  *  not predicted  {chosen}");
            continue;
        };
        let mut best: Vec<(ImplicitGemm, f64)> = Vec::new();
        for (schedule, cycles) in implicit_gemm::candidates(gpu, &gemm) {
            let is_of_tile = |s: &ImplicitGemm| {
                ImplicitGemm {
                    splits: schedule.splits,
                    ..*s
                } == schedule
            };
            match best.last_mut().filter(|(s, _)| is_of_tile(s)) {
                Some(known) if cycles < known.1 => *known = (schedule, cycles),
                Some(_) => {}
                None => best.push((schedule, cycles)),
            }
        }
        if let Schedule::ImplicitGemm(s) = chosen
            && !best.iter().any(|(known, _)| *known == s)
        {
            best.push((s, implicit_gemm::cycles(gpu, &gemm, &s)));
        }
        for (schedule, cycles) in best {
            let schedule = Schedule::ImplicitGemm(schedule);
            let mark = if schedule == chosen { '*' } else { ' ' };
            // Writing to a String cannot fail.
            let _ = writeln!(text, "  {mark} {cycles:12.0} cycles  {schedule}");
            if schedule == chosen {
                total += cycles;
            }
        }
        if chosen == Schedule::General {
            text += "  *  not predicted  general\n";
        }
    }
    let _ = writeln!(text, "predicted in all: {total:.0} cycles of an A100");
    Ok(text)
}

/// The report on a graph whose schedules are chosen.
pub fn schedule_report(graph: &Graph, options: &Options) -> Result<String, GraphError> {
    let mut text = format!("schedules of {}, batch {}\n", graph.name, options.batch_bound);
    let Some(machine) = options.target.machine else {
        if let Some(gpu) = options.target.gpu {
            return on_gpu(graph, options, &gpu);
        }
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
        text += &heading(graph, id);
        let chosen = node.schedule.unwrap_or(Schedule::General);
        let mut candidates = problem.candidates(true);
        if !candidates.iter().any(|(schedule, _)| *schedule == chosen)
            && let Some(cost) = problem.cost(&chosen)
        {
            candidates.push((chosen, cost));
        }
        for (schedule, cost) in &candidates {
            // Writing to a String cannot fail.
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
