//! The reference evaluation: all ranks in lockstep, node by node, in float64. It is the oracle that everything
//! else is measured against and stays plain: no parallelism, no fusion, no reuse of buffers.

use std::collections::BTreeMap;

use crate::graph::{Graph, GraphError, NodeId, OutputKind, Value};
use crate::ops::{Op, Scope, StepInfo};
use crate::tensor::Array;

/// Arrays by name.
pub type Named = BTreeMap<String, Array>;

/// What one rank is given in a step.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RankInputs {
    /// Its samples; 0 is allowed.
    pub n: usize,
    /// Inputs by name, data and targets. Axis 0 has size `n`.
    pub values: Named,
}

/// What a network remembers from step to step.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct State {
    /// Parameters by name, shared by all ranks.
    pub parameters: Named,
    /// Running statistics by name: one entry a rank, or a single entry that all ranks start from.
    pub statistics: Vec<Named>,
    /// SGD's velocity or AdamW's first moment by parameter; empty before the first step.
    pub velocity: Named,
    /// AdamW's second moment by parameter; empty before the first step.
    pub second_moment: Named,
    /// Training steps so far.
    pub steps: u64,
}

/// The graph's outputs on one rank.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RankOutputs(pub BTreeMap<(OutputKind, String), Array>);

impl RankOutputs {
    /// One output.
    pub fn get(&self, kind: OutputKind, name: &str) -> Option<&Array> {
        self.0.get(&(kind, name.to_string()))
    }

    /// All outputs of one kind by name.
    pub fn of_kind(&self, kind: OutputKind) -> impl Iterator<Item = (&str, &Array)> {
        let of_kind = self.0.iter().filter(move |((k, _), _)| *k == kind);
        of_kind.map(|((_, name), array)| (name.as_str(), array))
    }
}

/// Why an evaluation stopped.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum EvalError {
    /// The graph cannot be ordered.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// An operator refused its operands.
    #[error("rank {rank}: node \"{name}\" ({op}): {message}")]
    Node {
        /// Rank.
        rank: usize,
        /// Label of the node.
        name: String,
        /// Operator.
        op: String,
        /// What is wrong.
        message: String,
    },
    /// Something that the step needs was not given.
    #[error("{what} \"{name}\" was not given")]
    Missing {
        /// Input, parameter or statistic.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// A given array has another shape than the graph says.
    #[error("\"{name}\" has shape {found:?}, expected {expected:?}")]
    Shape {
        /// Name of the array.
        name: String,
        /// Its shape.
        found: Vec<usize>,
        /// The shape of the graph.
        expected: Vec<usize>,
    },
    /// The number of ranks does not fit.
    #[error("{0}")]
    Ranks(String),
}

/// One step of a graph on `ranks.len()` ranks. Nothing is changed: new statistics and gradients are outputs.
pub fn evaluate(graph: &Graph, ranks: &[RankInputs], state: &State) -> Result<Vec<RankOutputs>, EvalError> {
    let order = graph.topological()?;
    let mut reads = read_counts(graph, &order);
    let total = ranks.iter().map(|r| r.n).sum();
    let mut states = Vec::with_capacity(ranks.len());
    for (number, inputs) in ranks.iter().enumerate() {
        states.push(Rank {
            number,
            inputs,
            parameters: &state.parameters,
            statistics: state.statistics_of(number, ranks.len())?,
            step: StepInfo { n: inputs.n, total },
            values: BTreeMap::new(),
        });
    }
    let mut ranks = states;
    for &id in &order {
        let operands = graph.operands(id);
        let results: Vec<Vec<Array>> = match graph.op(id) {
            Op::AllReduce(op) => all_reduce(op.scope, &operands, &ranks)?,
            _ => ranks
                .iter()
                .map(|rank| rank.evaluate(graph, id, &operands))
                .collect::<Result<_, _>>()?,
        };
        for (rank, results) in ranks.iter_mut().zip(results) {
            for (slot, array) in results.into_iter().enumerate() {
                let value = Value { node: id, slot };
                if reads.contains_key(&value) {
                    rank.values.insert(value, array);
                }
            }
        }
        for operand in operands {
            if let Some(count) = reads.get_mut(&operand) {
                *count -= 1;
                if *count == 0 {
                    ranks.iter_mut().for_each(|r| drop(r.values.remove(&operand)));
                }
            }
        }
    }
    Ok(ranks.iter().map(|rank| rank.outputs(graph)).collect())
}

/// How often nodes read each value; a value that is an output is read once more, so that it is never dropped.
fn read_counts(graph: &Graph, order: &[NodeId]) -> BTreeMap<Value, usize> {
    let operands = order.iter().flat_map(|&id| graph.operands(id));
    let mut reads = BTreeMap::new();
    for value in operands.chain(graph.outputs.iter().map(|o| o.value)) {
        *reads.entry(value).or_insert(0) += 1;
    }
    reads
}

/// A rank in the middle of a step.
struct Rank<'a> {
    number: usize,
    inputs: &'a RankInputs,
    parameters: &'a Named,
    statistics: Option<&'a Named>,
    step: StepInfo,
    values: BTreeMap<Value, Array>,
}

impl Rank<'_> {
    fn evaluate(&self, graph: &Graph, id: NodeId, operands: &[Value]) -> Result<Vec<Array>, EvalError> {
        let node = graph.node(id);
        let shape = graph.ty(id.into()).shape.sizes(self.step.n);
        match &node.op {
            Op::Input(op) => given("input", &op.name, Some(&self.inputs.values), shape),
            Op::Parameter(op) => given("parameter", &op.name, Some(self.parameters), shape),
            Op::Statistic(op) => given("statistic", &op.name, self.statistics, shape),
            op => {
                let error = |message: String| EvalError::Node {
                    rank: self.number,
                    name: node.name.clone(),
                    op: op.name().to_string(),
                    message,
                };
                let operands: Option<Vec<&Array>> = operands.iter().map(|v| self.values.get(v)).collect();
                let operands = operands.ok_or_else(|| error("an operand has no value".to_string()))?;
                op.evaluate(&operands, self.step).map_err(error)
            }
        }
    }

    fn outputs(&self, graph: &Graph) -> RankOutputs {
        let named = graph.outputs.iter().filter_map(|o| {
            let array = self.values.get(&o.value)?.clone();
            Some(((o.kind, o.name.clone()), array))
        });
        RankOutputs(named.collect())
    }
}

/// The array that a source node stands for.
fn given(
    what: &'static str,
    name: &str,
    from: Option<&Named>,
    expected: Vec<usize>,
) -> Result<Vec<Array>, EvalError> {
    let array = from.and_then(|named| named.get(name));
    let array = array.ok_or_else(|| EvalError::Missing {
        what,
        name: name.to_string(),
    })?;
    if array.dims != expected {
        return Err(EvalError::Shape {
            name: name.to_string(),
            found: array.dims.clone(),
            expected,
        });
    }
    Ok(vec![array.clone()])
}

impl State {
    /// The running statistics of one of `ranks` ranks.
    fn statistics_of(&self, rank: usize, ranks: usize) -> Result<Option<&Named>, EvalError> {
        match self.statistics.len() {
            0 => Ok(None),
            1 => Ok(self.statistics.first()),
            n if n == ranks => Ok(self.statistics.get(rank)),
            n => Err(EvalError::Ranks(format!(
                "statistics of {n} ranks were given to {ranks}"
            ))),
        }
    }
}

/// Sums every operand over the ranks of each group, in rank order, and gives all of them the sum.
fn all_reduce(scope: Scope, operands: &[Value], ranks: &[Rank<'_>]) -> Result<Vec<Vec<Array>>, EvalError> {
    let count = ranks.len();
    let size = match scope {
        Scope::All => count.max(1),
        Scope::Group(k) if k > 0 && count.is_multiple_of(k) => k,
        Scope::Group(k) => {
            return Err(EvalError::Ranks(format!(
                "{count} ranks are not a multiple of groups of {k}"
            )));
        }
    };
    let mut results = Vec::with_capacity(count);
    for group in ranks.chunks(size) {
        let sums: Vec<Array> = operands.iter().filter_map(|v| sum(group, v)).collect();
        results.extend(std::iter::repeat_n(sums, group.len()));
    }
    Ok(results)
}

fn sum(group: &[Rank<'_>], value: &Value) -> Option<Array> {
    let mut shares = group.iter().filter_map(|rank| rank.values.get(value));
    let mut sum = shares.next()?.clone();
    for share in shares {
        sum.data.iter_mut().zip(&share.data).for_each(|(s, &x)| *s += x);
    }
    Some(sum)
}
