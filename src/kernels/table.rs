//! The report as text: a table for each part, within 160 columns.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::roofline::Bound;
use super::rows::{AllReduce, Launch, Report, Row, Table, Totals};

/// Width of names; longer ones lose their middle.
const NODE: usize = 26;
const KERNEL: usize = 31;
/// What a column shows where a row has nothing.
const NOTHING: &str = "-";

/// The columns after the kernel: head, unit, width.
const COLUMNS: [(&str, &str, usize); 13] = [
    ("grid", "", 9),
    ("block", "", 5),
    ("regs", "", 4),
    ("shared", "KB", 6),
    ("read", "MB", 8),
    ("written", "MB", 8),
    ("least", "MB", 8),
    ("work", "GFLOP", 8),
    ("blks", "/SM", 4),
    ("waves", "", 6),
    ("flight", "KB", 6),
    ("time", "us", 7),
    ("by", "", 4),
];

/// The report's text.
pub fn text(report: &Report) -> String {
    let mut text = String::new();
    for table in &report.steps {
        if !text.is_empty() {
            text.push('\n');
        }
        add_table(&mut text, report, table);
    }
    text
}

/// Adds a line, without spaces at its end.
fn line(text: &mut String, words: &str) {
    text.push_str(words.trim_end());
    text.push('\n');
}

fn add_table(text: &mut String, report: &Report, table: &Table) {
    let what = match table.name {
        "train" => "A training step",
        "prepare" => "What inference does once",
        _ => "A batch of inference",
    };
    let registers = match &report.ptxas {
        Some(gpu) => format!("registers by ptxas for {gpu}"),
        None => "registers unknown without ptxas".to_string(),
    };
    let Report {
        gpu,
        multiprocessors,
        precision,
        batch,
        ..
    } = report;
    line(
        text,
        &format!(
            "{what}: {precision}, {batch} samples, one rank, {gpu} ({multiprocessors} multiprocessors), {registers}; \
             times by a model"
        ),
    );
    line(
        text,
        &cells(
            "#",
            "node",
            "kernel",
            &COLUMNS.map(|(head, _, _)| head.to_string()),
        ),
    );
    line(
        text,
        &cells("", "", "", &COLUMNS.map(|(_, unit, _)| unit.to_string())),
    );
    for (i, row) in table.rows.iter().enumerate() {
        let number = (i + 1).to_string();
        line(
            text,
            &match row {
                Row::Launch(launch) => launch_cells(&number, launch),
                Row::AllReduce(sum) => all_reduce_cells(&number, sum),
            },
        );
    }
    add_operators(text, table);
    add_schedules(text, table);
    let Totals {
        launches,
        all_reduces,
        all_reduce_bytes,
        flop,
        read_bytes,
        written_bytes,
        least_bytes,
        milliseconds,
    } = table.totals;
    line(
        text,
        &format!(
            "total: {launches} launches, {} GFLOP, {} GB moved ({} read, {} written), {} GB at least, {} ms",
            digits(flop as f64 / 1e9),
            giga(read_bytes + written_bytes),
            giga(read_bytes),
            giga(written_bytes),
            giga(least_bytes),
            digits(milliseconds),
        ),
    );
    if all_reduces > 0 {
        let megabytes = digits(all_reduce_bytes as f64 / 1e6);
        line(
            text,
            &format!("all-reduces of several ranks: {all_reduces}, of {megabytes} MB, not in the time"),
        );
    }
}

fn giga(bytes: u64) -> String {
    digits(bytes as f64 / 1e9)
}

/// A number with four digits, or two where it is below a thousandth.
fn digits(value: f64) -> String {
    match value {
        0.0 => "0".to_string(),
        ..0.001 => format!("{value:.1e}"),
        ..1.0 => format!("{value:.4}"),
        ..10.0 => format!("{value:.3}"),
        ..100.0 => format!("{value:.2}"),
        ..1000.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

fn cells(number: &str, node: &str, kernel: &str, columns: &[String; 13]) -> String {
    let mut cells = format!(
        "{number:>4} {:NODE$} {:KERNEL$}",
        short(node, NODE),
        short(kernel, KERNEL)
    );
    for (cell, (_, _, width)) in columns.iter().zip(COLUMNS) {
        // A `String` takes everything that is written to it.
        let _ = write!(cells, " {cell:>width$}");
    }
    cells
}

/// A name of at most `width` characters: its beginning and its end.
fn short(name: &str, width: usize) -> String {
    let characters: Vec<char> = name.chars().collect();
    if characters.len() <= width {
        return name.to_string();
    }
    let rest = width - 2;
    let (begin, end) = (rest / 3, rest - rest / 3);
    let [begin, end] = [&characters[..begin], &characters[characters.len() - end..]];
    format!("{}..{}", String::from_iter(begin), String::from_iter(end))
}

fn launch_cells(number: &str, launch: &Launch) -> String {
    let [across, _, planes] = launch.grid;
    let grid = match planes {
        1 => across.to_string(),
        _ => format!("{across}x1x{planes}"),
    };
    let mega = |bytes: u64| digits(bytes as f64 / 1e6);
    let kilo = |bytes: u64| format!("{:.1}", bytes as f64 / 1e3);
    let by = match launch.bound {
        Bound::Launch => "gap",
        Bound::Memory => "mem",
        Bound::Latency => "lat",
        Bound::Arithmetic => "alu",
        Bound::Product => "mma",
    };
    let columns = [
        grid,
        launch.block.to_string(),
        launch.registers.map_or(NOTHING.to_string(), |n| n.to_string()),
        kilo(launch.shared_bytes.into()),
        mega(launch.read_bytes),
        mega(launch.written_bytes),
        mega(launch.least_bytes),
        digits(launch.flop as f64 / 1e9),
        launch.blocks_per_multiprocessor.to_string(),
        digits(launch.waves),
        digits(launch.in_flight_bytes as f64 / 1e3),
        digits(launch.microseconds),
        by.to_string(),
    ];
    cells(number, &launch.node, &launch.kernel, &columns)
}

fn all_reduce_cells(number: &str, sum: &AllReduce) -> String {
    let mut columns = [NOTHING; 13].map(str::to_string);
    columns[6] = digits(sum.bytes as f64 / 1e6);
    let kind = match sum.gradients {
        true => "all-reduce of gradients",
        false => "all-reduce",
    };
    cells(number, &sum.node, kind, &columns)
}

/// Adds how products are divided, where tensor cores multiply.
fn add_schedules(text: &mut String, table: &Table) {
    let mut schedules: BTreeMap<&str, u64> = BTreeMap::new();
    for row in &table.rows {
        if let Row::Launch(launch) = row
            && let Some(schedule) = &launch.schedule
        {
            *schedules.entry(schedule).or_default() += 1;
        }
    }
    if schedules.is_empty() {
        return;
    }
    line(text, &format!("{:112} {:>8}", "schedule", "launches"));
    for (schedule, launches) in schedules {
        line(text, &format!("{schedule:112} {launches:8}"));
    }
    text.push('\n');
}

/// Adds sums for each operator, those that take longest first.
fn add_operators(text: &mut String, table: &Table) {
    let mut operators: BTreeMap<String, Totals> = BTreeMap::new();
    for row in &table.rows {
        if let Row::Launch(launch) = row {
            let name = match launch.stage {
                "whole" => launch.operator.clone(),
                stage => format!("{}, {stage}", launch.operator),
            };
            operators.entry(name).or_default().add(row);
        }
    }
    let mut operators: Vec<(String, Totals)> = operators.into_iter().collect();
    operators.sort_by(|a, b| b.1.milliseconds.total_cmp(&a.1.milliseconds));
    text.push('\n');
    line(
        text,
        &format!(
            "{:36} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8}",
            "operator", "launches", "GFLOP", "MB read", "written", "ms", "TFLOP/s", "TB/s"
        ),
    );
    for (name, totals) in operators {
        let seconds = totals.milliseconds / 1e3;
        line(
            text,
            &format!(
                "{name:36} {:8} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8}",
                totals.launches,
                digits(totals.flop as f64 / 1e9),
                digits(totals.read_bytes as f64 / 1e6),
                digits(totals.written_bytes as f64 / 1e6),
                digits(totals.milliseconds),
                digits(totals.flop as f64 / seconds / 1e12),
                digits((totals.read_bytes + totals.written_bytes) as f64 / seconds / 1e12),
            ),
        );
    }
    text.push('\n');
}
