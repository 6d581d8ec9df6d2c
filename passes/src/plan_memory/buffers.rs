//! Which values share memory, and when that memory is in use.

use std::collections::{BTreeMap, BTreeSet};

use syncbn_ir::ops::Role;
use syncbn_ir::{Arena, Graph, Layout as ValueLayout, Location, NodeId, Op, OutputKind, Value};

use super::fit::{Buffer, fit};
use super::layout::Layout;
use super::workspace::Workspaces;
use super::{align, at, is_source, results, too_large};
use crate::analysis::depends_on_batch;
use crate::error::PassError;
use crate::options::{Mode, Options};

/// Groups of values that share one place (a union-find), with what is known of each group's place.
pub struct Buffers {
    mode: Mode,
    parents: BTreeMap<Value, Value>,
    claims: BTreeMap<Value, Claim>,
}

/// A place that a group must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// This one.
    Place(Location),
    /// Constants arena.
    Constant,
    /// Step arena, valid when the step ends.
    Loss,
}

/// Where everything goes.
pub struct Assigned {
    /// All values.
    pub locations: Vec<(Value, Location)>,
    /// Nodes with a workspace.
    pub workspaces: BTreeMap<NodeId, Location>,
    /// Size of the step arena.
    pub step_bytes: u64,
    /// Size of the prepared arena.
    pub prepared_bytes: u64,
    /// Size of the constants arena.
    pub constant_bytes: u64,
}

impl Buffers {
    /// Groups of one value each, except for reshapes, which share their operand's place.
    pub fn new(graph: &Graph, mode: Mode) -> Result<Buffers, PassError> {
        let mut buffers = Buffers {
            mode,
            parents: BTreeMap::new(),
            claims: BTreeMap::new(),
        };
        for id in graph.topological()? {
            if is_alias(graph, id) {
                buffers.join(id.into(), graph.operands(id)[0]);
            }
        }
        Ok(buffers)
    }

    /// Training or inference.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The value that stands for the group of `v`.
    pub fn root(&self, mut v: Value) -> Value {
        while let Some(&parent) = self.parents.get(&v) {
            v = parent;
        }
        v
    }

    /// Lets `v`'s group share the place of `with`'s.
    pub fn join(&mut self, v: Value, with: Value) {
        let (v, with) = (self.root(v), self.root(with));
        if v != with {
            self.parents.insert(v, with);
            if let Some(claim) = self.claims.remove(&v) {
                self.claims.entry(with).or_insert(claim);
            }
        }
    }

    /// Whether the group's place is not decided by liveness.
    pub fn is_claimed(&self, graph: &Graph, v: Value) -> bool {
        let root = self.root(v);
        is_source(graph.op(root.node)) || self.claims.contains_key(&root)
    }

    /// Decides a group's place.
    pub fn claim(&mut self, v: Value, claim: Claim) {
        let root = self.root(v);
        self.claims.insert(root, claim);
    }

    /// Gives every value its place.
    pub fn place(
        mut self,
        graph: &Graph,
        order: &[NodeId],
        layout: &Layout,
        options: &Options,
    ) -> Result<Assigned, PassError> {
        let batch_bound = options.batch_bound;
        self.claim_sources(graph, layout);
        let of_batch = depends_on_batch(graph)?;
        let early = |v: Value| self.mode == Mode::Infer && !of_batch.contains(&v.node);
        let mut lives = self.lives(graph, order);
        let early: BTreeMap<Value, bool> = lives.keys().map(|&root| (root, early(root))).collect();
        self.work_in_place(graph, order, &mut lives, &early);

        let bytes = |v: Value| {
            graph
                .ty(v)
                .bytes(batch_bound)
                .ok_or_else(too_large)
                .and_then(align)
        };
        let mut places: BTreeMap<Value, Location> = BTreeMap::new();
        let (mut constant_bytes, mut prepared_bytes, mut step) = (0u64, 0u64, Vec::new());
        for (&root, &(begin, end)) in &lives {
            let size = bytes(root)?;
            let mut next = |arena: Arena, bytes: &mut u64| {
                let location = at(arena, *bytes);
                *bytes = bytes.checked_add(size).ok_or_else(too_large)?;
                places.insert(root, location);
                Ok::<(), PassError>(())
            };
            match self.claims.get(&root) {
                Some(&Claim::Place(location)) => {
                    places.insert(root, location);
                }
                Some(Claim::Constant) => next(Arena::Constants, &mut constant_bytes)?,
                None if early[&root] => next(Arena::Prepared, &mut prepared_bytes)?,
                None | Some(Claim::Loss) => step.push((root, Buffer { begin, end, size })),
            }
        }
        let runs_early = |id: NodeId| early.get(&self.root(id.into())).copied().unwrap_or(false);
        let workspaces = Workspaces::of(graph, order, runs_early, options)?;
        let of_nodes = workspaces.step.iter().map(|&(_, buffer)| buffer);
        let all: Vec<Buffer> = step.iter().map(|&(_, buffer)| buffer).chain(of_nodes).collect();
        let (offsets, step_bytes) = fit(&all, step.len())?;
        for (&(root, _), &offset) in step.iter().zip(&offsets) {
            places.insert(root, at(Arena::Step, offset));
        }
        let shared = prepared_bytes;
        prepared_bytes = shared
            .checked_add(workspaces.prepared_bytes)
            .ok_or_else(too_large)?;
        let values = order.iter().flat_map(|&id| results(graph, id));
        let located = values.filter_map(|v| Some((v, *places.get(&self.root(v))?)));
        Ok(Assigned {
            locations: located.collect(),
            workspaces: workspaces.places(&offsets[step.len()..], shared),
            step_bytes,
            prepared_bytes,
            constant_bytes,
        })
    }

    fn claim_sources(&mut self, graph: &Graph, layout: &Layout) {
        let (mut data, mut targets) = (Vec::new(), Vec::new());
        for id in graph.nodes() {
            let claim = match graph.op(id) {
                Op::Parameter(p) => layout
                    .parameter(&p.name)
                    .map(|t| Claim::Place(at(Arena::Weights, t.offset))),
                Op::Statistic(s) => layout
                    .statistic(&s.name)
                    .map(|t| Claim::Place(at(Arena::Statistics, t.offset))),
                Op::Constant(_) => Some(Claim::Constant),
                Op::Input(i) => {
                    let list = if i.role == Role::Target {
                        &mut targets
                    } else {
                        &mut data
                    };
                    list.push(id);
                    None
                }
                _ => None,
            };
            if let Some(claim) = claim {
                self.claim(id.into(), claim);
            }
        }
        for (index, id) in data.into_iter().chain(targets).enumerate() {
            self.claim(id.into(), Claim::Place(at(Arena::Inputs, index as u64)));
        }
    }

    /// First and last position in the schedule at which each group holds something.
    fn lives(&self, graph: &Graph, order: &[NodeId]) -> BTreeMap<Value, (usize, usize)> {
        let positions: BTreeMap<NodeId, usize> = order.iter().enumerate().map(|(i, &id)| (id, i)).collect();
        let whole = (0, order.len());
        let kept = graph.outputs.iter().filter(|o| o.kind != OutputKind::Output);
        let kept: BTreeSet<Value> = kept.map(|o| o.value).collect();
        let mut lives: BTreeMap<Value, (usize, usize)> = BTreeMap::new();
        for (position, &id) in order.iter().enumerate() {
            for v in results(graph, id) {
                let readers = graph
                    .users(v)
                    .into_iter()
                    .filter_map(|(user, _)| positions.get(&user).copied());
                let mut end = readers.max().unwrap_or(position);
                if kept.contains(&v) {
                    end = order.len();
                }
                let life = lives.entry(self.root(v)).or_insert((position, end));
                *life = (life.0.min(position), life.1.max(end));
                if is_saved(graph, v) {
                    *life = whole;
                }
            }
        }
        lives
    }

    /// Lets elementwise results take the place of an operand that dies there.
    fn work_in_place(
        &mut self,
        graph: &Graph,
        order: &[NodeId],
        lives: &mut BTreeMap<Value, (usize, usize)>,
        early: &BTreeMap<Value, bool>,
    ) {
        let movable = |buffers: &Buffers, root: Value| {
            !buffers.claims.contains_key(&root) && early.get(&root) == Some(&false)
        };
        for (position, &id) in order.iter().enumerate() {
            if !matches!(graph.op(id), Op::Unary(_) | Op::UnaryBackward(_) | Op::Binary(_)) {
                continue;
            }
            let result = self.root(id.into());
            let operands = graph.operands(id);
            for &operand in &operands {
                let root = self.root(operand);
                // Another value in the same place, such as a reshaped one, is read at other indices.
                let alone = operands.iter().all(|&o| o == operand || self.root(o) != root);
                let dies = lives.get(&root).is_some_and(|life| life.1 == position);
                let same = graph.ty(operand) == graph.ty(id.into());
                if !(alone && dies && same && root != result && movable(self, root) && movable(self, result))
                {
                    continue;
                }
                if let (Some(after), Some(&before)) = (lives.remove(&result), lives.get(&root)) {
                    self.join(result, root);
                    lives.insert(root, (before.0, before.1.max(after.1)));
                }
                break;
            }
        }
    }
}

/// Whether a node's result is its operand in another shape. Other layouts than the plain one need a copy.
pub fn is_alias(graph: &Graph, id: NodeId) -> bool {
    let plain = |v: Value| graph.ty(v).layout == ValueLayout::Plain;
    matches!(graph.op(id), Op::Reshape(_)) && plain(id.into()) && graph.operand(id, 0).is_some_and(plain)
}

/// What a BatchNorm keeps until the next step: count, mean and inverse deviation.
fn is_saved(graph: &Graph, v: Value) -> bool {
    match graph.op(v.node) {
        Op::BatchNormFinalize(_) => v.slot < 3,
        Op::BatchNorm(_) => (1..3).contains(&v.slot),
        _ => false,
    }
}
