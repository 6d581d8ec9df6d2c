//! The report as data: its serialised form is what `--emit kernels-json` writes.

use std::collections::BTreeMap;

use serde::Serialize;
use syncbn_abi::gpu_symbols::{INFER_PREPARE, INFER_STEP, TRAIN_STEP, UPDATE_SGD};
use syncbn_mlir::gpu::launches::{Enqueued, EntryPoint, Launched};
use syncbn_mlir::gpu::{Kernels, Share};

use super::machine::Machine;
use super::roofline::{Bound, Occupancy, occupancy};
use crate::Options;

/// What a program launches.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// The GPU.
    pub gpu: &'static str,
    /// Its multiprocessors.
    pub multiprocessors: u64,
    /// How matrices are multiplied.
    pub precision: &'static str,
    /// Samples of the rank.
    pub batch: usize,
    /// What ptxas assembled for to tell the registers; null without one.
    pub ptxas: Option<String>,
    /// One for each part: a training step, what inference does once, a batch of inference.
    pub steps: Vec<Table>,
}

/// What one part launches.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Table {
    /// `train`, `prepare` or `infer`.
    pub name: &'static str,
    /// What is enqueued, in order.
    pub rows: Vec<Row>,
    /// Sums over the rows.
    pub totals: Totals,
}

/// What is enqueued.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Row {
    /// A kernel.
    Launch(Box<Launch>),
    /// A sum over ranks.
    AllReduce(AllReduce),
}

/// A sum over ranks, which one rank leaves out.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AllReduce {
    /// Name of its node.
    pub node: String,
    /// Whether it sums gradients, on their own stream.
    pub gradients: bool,
    /// Bytes that it sums.
    pub bytes: u64,
}

/// A launch of a kernel.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Launch {
    /// Name of the node.
    pub node: String,
    /// Its operator.
    pub operator: String,
    /// Symbol of the kernel.
    pub kernel: String,
    /// `whole`, or which stage of the operator it is: `weights`, `partial`, `moments` or `merge`.
    pub stage: &'static str,
    /// Blocks along each axis.
    pub grid: [u64; 3],
    /// Threads of a block.
    pub block: u32,
    /// Registers of a thread; null without ptxas.
    pub registers: Option<u64>,
    /// Bytes of shared memory of a block.
    pub shared_bytes: u32,
    /// Rows, columns and reduced elements of a step of a block, where tensor cores multiply; else null.
    pub tile: Option<[i64; 3]>,
    /// How the product is divided, in the text form of schedules, where tensor cores multiply; else null.
    pub schedule: Option<String>,
    /// Bytes that it reads.
    pub read_bytes: u64,
    /// Bytes that it writes.
    pub written_bytes: u64,
    /// The fewest bytes that it could move.
    pub least_bytes: u64,
    /// Operations.
    pub flop: u64,
    /// Blocks that a multiprocessor holds.
    pub blocks_per_multiprocessor: u64,
    /// Blocks over those that the GPU holds.
    pub waves: f64,
    /// Bytes that are asked for at once.
    pub in_flight_bytes: u64,
    /// Time by the model.
    pub microseconds: f64,
    /// What decides the time.
    pub bound: Bound,
}

/// Sums over rows. All-reduces have no part in times and in bytes moved.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Totals {
    /// Launches.
    pub launches: u64,
    /// All-reduces.
    pub all_reduces: u64,
    /// Bytes that these sum.
    pub all_reduce_bytes: u64,
    /// Operations.
    pub flop: u64,
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub written_bytes: u64,
    /// The fewest bytes.
    pub least_bytes: u64,
    /// Time by the model.
    pub milliseconds: f64,
}

impl Report {
    /// Of lowered kernels whose registers are given by name, where ptxas told them.
    pub fn new(
        kernels: &Kernels,
        machine: &Machine,
        options: &Options,
        registers: Option<&BTreeMap<String, u64>>,
    ) -> Report {
        let row = |enqueued: &Enqueued| match enqueued {
            Enqueued::Launch(launched) => {
                let kernel = &kernels.kernels[launched.kernel];
                let registers = registers.and_then(|all| all.get(&kernel.name)).copied();
                let occupancy = occupancy(machine, kernel, registers, launched);
                let mut row = Launch::new(launched, &occupancy);
                row.kernel.clone_from(&kernel.name);
                (row.block, row.shared_bytes, row.registers) = (kernel.block, kernel.shared, registers);
                Row::Launch(Box::new(row))
            }
            Enqueued::AllReduce {
                node,
                gradients,
                bytes,
            } => Row::AllReduce(AllReduce {
                node: node.clone(),
                gradients: *gradients,
                bytes: *bytes,
            }),
        };
        let enqueued = |function: &str| {
            let of_function = |point: &&EntryPoint| point.function == function;
            let point = kernels.entry_points.iter().find(of_function);
            point.into_iter().flat_map(|point| &point.enqueued)
        };
        let parts: [(&str, &[&str]); 3] = [
            ("train", &[TRAIN_STEP, UPDATE_SGD]),
            ("prepare", &[INFER_PREPARE]),
            ("infer", &[INFER_STEP]),
        ];
        let tables = parts.map(|(name, functions)| {
            Table::new(
                name,
                functions
                    .iter()
                    .flat_map(|function| enqueued(function))
                    .map(row)
                    .collect(),
            )
        });
        Report {
            gpu: machine.name,
            multiprocessors: machine.multiprocessors,
            precision: options.products.name(),
            batch: options.batch,
            ptxas: registers.map(|_| format!("sm_{}", machine.capability)),
            steps: tables
                .into_iter()
                .filter(|table| !table.rows.is_empty())
                .collect(),
        }
    }
}

impl Launch {
    /// What the launch alone says, without its kernel.
    fn new(launched: &Launched, occupancy: &Occupancy) -> Launch {
        let [across, planes] = launched.grid;
        let traffic = launched.traffic;
        Launch {
            node: launched.node.clone(),
            operator: launched.op.clone(),
            kernel: String::new(),
            stage: match (launched.cost.share, launched.cost.of_result) {
                (Share::Whole | Share::Partial, true) => "moments",
                (Share::Whole, false) => "whole",
                (Share::Weights, _) => "weights",
                (Share::Partial, false) => "partial",
                (Share::Merge, _) => "merge",
            },
            grid: [across, 1, planes],
            block: 0,
            registers: None,
            shared_bytes: 0,
            tile: launched.cost.tiles.map(|tiles| tiles.block),
            schedule: launched.cost.tiles.map(|tiles| tiles.to_string()),
            read_bytes: traffic.read,
            written_bytes: traffic.written,
            least_bytes: traffic.least,
            flop: traffic.flop,
            blocks_per_multiprocessor: occupancy.resident,
            waves: occupancy.waves,
            in_flight_bytes: occupancy.in_flight,
            microseconds: occupancy.seconds * 1e6,
            bound: occupancy.bound,
        }
    }
}

impl Totals {
    /// Takes account of a row.
    pub fn add(&mut self, row: &Row) {
        match row {
            Row::Launch(launch) => {
                self.launches += 1;
                self.flop += launch.flop;
                self.read_bytes += launch.read_bytes;
                self.written_bytes += launch.written_bytes;
                self.least_bytes += launch.least_bytes;
                self.milliseconds += launch.microseconds / 1e3;
            }
            Row::AllReduce(all_reduce) => {
                self.all_reduces += 1;
                self.all_reduce_bytes += all_reduce.bytes;
            }
        }
    }
}

impl Table {
    fn new(name: &'static str, rows: Vec<Row>) -> Table {
        let mut totals = Totals::default();
        rows.iter().for_each(|row| totals.add(row));
        Table { name, rows, totals }
    }
}
