//! Any split of a batch over ranks gives what the definition gives on whole groups.

use syncbn_ir::DType;
use syncbn_passes::{BatchNormMode, Options, training_graph};

use super::expected::Expected;
use super::{DEFINITION, for_each_seed, random_groups, state_of, target};
use crate::random_network::random_network;
use crate::support::{after, inputs, options, run, split};

/// Compares ranks in groups of `k` with one rank a group that has all of its samples; the statistics of all ranks
/// are shared under `sync`, of a group's under `group=k`, and of none under `local`.
fn splits_do_not_matter(batch_norm: BatchNormMode, groups: usize, k: usize) {
    let property = format!("{batch_norm:?}");
    for_each_seed(&property, |seed| {
        let network = random_network(seed, DType::F64).unwrap();
        let state = state_of(&network, seed);
        let definition = after(&network, DEFINITION, &options());
        let groups = random_groups(seed, groups, k);
        let whole: Vec<usize> = groups.iter().map(|ranks| ranks.iter().sum()).collect();
        let counts = groups.concat();
        let data = inputs(&definition, counts.iter().sum(), seed);
        let options = Options {
            batch_norm,
            bucket_bytes: 1 + seed % 700,
            target: target(seed),
            ..options()
        };
        let (graph, _) = training_graph(&network, &options).unwrap();
        let expected = Expected::of(&definition, split(&data, &whole), &state, k);
        let what = format!("seed {seed}, {batch_norm:?} over {counts:?}");
        expected.check(&what, &graph, &run(&graph, &split(&data, &counts), &state))
    });
}

#[test]
fn splits_do_not_matter_to_synchronised_statistics() {
    splits_do_not_matter(BatchNormMode::Sync, 1, 4);
}

#[test]
fn splits_do_not_matter_within_groups_of_two() {
    splits_do_not_matter(BatchNormMode::Group(2), 2, 2);
}

#[test]
fn splits_do_not_matter_within_groups_of_three() {
    splits_do_not_matter(BatchNormMode::Group(3), 3, 3);
}

/// Each rank gives what it would give alone, but for the gradients' sum.
#[test]
fn ranks_do_not_matter_to_local_statistics() {
    splits_do_not_matter(BatchNormMode::Local, 4, 1);
}
