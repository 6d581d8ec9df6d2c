//! Passes keep what a training step computes, in every mode of BatchNorm, on one rank and on several.

use syncbn_ir::{DType, Graph, RankInputs, State};
use syncbn_passes::pipelines::PASSES;
use syncbn_passes::{BatchNormMode, Options, training_graph};

use super::expected::Expected;
use super::{DEFINITION, Effective, for_each_seed, names_of, random_groups, state_of, target, worse};
use crate::memory::check_memory;
use crate::random_network::random_network;
use crate::support::{after, inputs, options, run, split};

/// The passes without which ranks know nothing of each other.
const COLLECTIVES: &[&str] = &["bn-to-syncbn", "insert-gradient-all-reduce"];

/// A network, and how its step is compared: the mode and the ranks follow from the seed.
struct Step {
    seed: u64,
    network: Graph,
    state: State,
    options: Options,
    /// Samples of the ranks, group by group.
    groups: Vec<Vec<usize>>,
    definition: Graph,
}

impl Step {
    fn of(seed: u64) -> Step {
        let network = random_network(seed, DType::F64).unwrap();
        let modes = [
            BatchNormMode::Sync,
            BatchNormMode::Local,
            BatchNormMode::Group(2),
            BatchNormMode::Frozen,
        ];
        let batch_norm = modes[seed as usize % modes.len()];
        let several = !(seed / modes.len() as u64).is_multiple_of(2);
        let groups = match batch_norm {
            BatchNormMode::Group(k) => random_groups(seed, 2, k),
            _ if !several => vec![vec![4]],
            BatchNormMode::Local => random_groups(seed, 3, 1),
            BatchNormMode::Sync | BatchNormMode::Frozen => random_groups(seed, 1, 3),
        };
        let options = Options {
            batch_norm,
            // Small buckets, so that there are several.
            bucket_bytes: 1 + seed % 700,
            target: target(seed),
            ..options()
        };
        Step {
            seed,
            state: state_of(&network, seed),
            definition: after(&network, DEFINITION, &options),
            network,
            options,
            groups,
        }
    }

    /// What the definition computes with one rank a group, and the inputs of all ranks.
    fn expected(&self) -> (Expected<'_>, Vec<RankInputs>) {
        let whole: Vec<usize> = self.groups.iter().map(|ranks| ranks.iter().sum()).collect();
        let counts = self.groups.concat();
        let data = inputs(&self.definition, counts.iter().sum(), self.seed);
        let summed = self.groups[0].len();
        let expected = Expected::of(&self.definition, split(&data, &whole), &self.state, summed);
        (expected, split(&data, &counts))
    }

    /// The graph made a step that these ranks can run, after some passes have run: one rank needs no sums.
    fn completed(&self, graph: &Graph, done: &[&str]) -> Graph {
        let alone = self.groups.concat().len() == 1;
        let sums = if alone { &[] } else { COLLECTIVES };
        let mut missing = [DEFINITION, sums].concat();
        missing.retain(|pass| !done.contains(pass));
        after(graph, &missing, &self.options)
    }

    fn what(&self, pass: &str) -> String {
        let Step { seed, groups, .. } = self;
        format!(
            "seed {seed}, {:?} over {groups:?}, {pass}",
            self.options.batch_norm
        )
    }
}

/// Options for one rank, which is no group of two.
fn one_rank(options: &Options) -> Options {
    let batch_norm = match options.batch_norm {
        BatchNormMode::Group(_) => BatchNormMode::Group(1),
        mode => mode,
    };
    Options {
        batch_norm,
        ..options.clone()
    }
}

/// One pass after the other, and the whole pipeline.
#[test]
fn every_pass_keeps_the_training_step() {
    let names = names_of("train");
    let effective = Effective::default();
    for_each_seed("passes", |seed| {
        let step = Step::of(seed);
        let (expected, ranks) = step.expected();
        let compare =
            |graph: &Graph, what: &str| expected.check(what, graph, &run(graph, &ranks, &step.state));
        let mut graph = step.network.clone();
        let mut worst = None;
        for (i, &pass) in names.iter().enumerate() {
            let what = step.what(pass);
            let Some(next) = effective.after(&graph, pass, &step.options, &what) else {
                continue;
            };
            graph = next;
            // What these make of the graph has been compared: they completed it before.
            if !DEFINITION.contains(&pass) {
                worst = worse(worst, compare(&step.completed(&graph, &names[..=i]), &what));
            }
        }
        let (whole, _) = training_graph(&step.network, &step.options).unwrap();
        worst = worse(worst, compare(&whole, &step.what("whole")));
        let options = one_rank(&step.options);
        let (whole, report) = training_graph(&step.network, &options).unwrap();
        check_memory(&step.what("memory"), (&whole, &report), &step.state, &options);
        worst
    });
    // `precision.rs` has f32 networks for this one.
    let names: Vec<&str> = names.into_iter().filter(|&p| p != "lower-precision").collect();
    effective.check(&names);
}

/// The passes that have to run before a pass has anything to do.
fn needs(pass: &str) -> &'static [&'static str] {
    match pass {
        "share-moments" | "fuse-conv-syncbn-silu" => &COLLECTIVES[..1],
        // Rewrites that follow would replace values by others in plain order.
        "assign-layouts" => &COLLECTIVES[..1],
        "combine-all-reduce" => COLLECTIVES,
        // Running statistics are updated in place by the parts of a BatchNorm only.
        "plan-memory" => &COLLECTIVES[..1],
        _ => &[],
    }
}

/// Each pass alone on the definition, and those that a network starts with also before its step is defined.
#[test]
fn each_pass_alone_keeps_the_training_step() {
    let clean = names_of("clean");
    // What makes the definition is not compared with it, inference alone folds, and these networks are f64.
    let others = ["fold-batch-norm", "lower-precision"];
    let left_out = |pass: &&str| DEFINITION.contains(pass) || others.contains(pass);
    let names: Vec<&str> = PASSES.iter().map(|p| p.name()).filter(|p| !left_out(p)).collect();
    let effective = Effective::default();
    for_each_seed("alone", |seed| {
        let step = Step::of(seed);
        let (expected, ranks) = step.expected();
        let compare = |graph: &Graph, pass: &'static str, done: &[&str]| {
            let what = step.what(&format!("{pass} alone after {done:?}"));
            let changed = effective.after(graph, pass, &step.options, &what)?;
            let changed = step.completed(&changed, &[done, &[pass]].concat());
            expected.check(&what, &changed, &run(&changed, &ranks, &step.state))
        };
        let mut worst = None;
        for &pass in &names {
            if clean.contains(&pass) {
                worst = worse(worst, compare(&step.network, pass, &[]));
            }
            let needs = needs(pass);
            let graph = after(&step.definition, needs, &step.options);
            worst = worse(worst, compare(&graph, pass, &[DEFINITION, needs].concat()));
        }
        worst
    });
    effective.check(&names);
}
