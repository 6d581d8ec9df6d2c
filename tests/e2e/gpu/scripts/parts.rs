//! Parts of gpu-first that need no executable.

use std::path::Path;
use std::process::Command;

use super::{ended, has_numpy, numpy, script};

/// Runs Python that finds the scripts' modules and numpy.
#[track_caller]
fn python(program: &str) {
    if !has_numpy() {
        return;
    }
    let mut command = Command::new("python3");
    let path = format!("{}:{}", script("").display(), numpy().display());
    command
        .args(["-B", "-c", program])
        .env("PYTHONPATH", path)
        .current_dir(env!("CARGO_MANIFEST_DIR"));
    ended(&command.output().unwrap(), 0);
}

/// Runs one of the programs in the folder `programs`.
#[track_caller]
fn program(name: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/gpu/scripts/programs");
    python(&std::fs::read_to_string(folder.join(name)).unwrap());
}

#[test]
fn an_exception_in_one_phase_or_a_full_disk_costs_no_other_phase() {
    program("failures.py");
}

#[test]
fn an_old_nccl_that_warns_in_its_file_is_not_possible_here() {
    program("old_nccl.py");
}

#[test]
fn part_of_a_step_is_counted_as_that() {
    program("counters.py");
}

#[test]
fn logged_losses_that_are_no_numbers_are_wrong() {
    python(
        "from gpu_ladder import loss_error\n\
         assert loss_error([1.0], [1.0, 2.0, 3.0]) == ('loss1', 0.0)\n\
         assert loss_error([1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0]) == ('loss', 0.0)\n\
         for bad in ([], [float('nan')], [1.0, 2.0, 3.0, float('inf')]):\n    \
             assert loss_error(bad, [1.0, 2.0, 3.0])[1] == float('inf'), bad",
    );
}

#[test]
fn what_an_earlier_run_kept_of_a_phase_that_was_cut_off_is_left_out() {
    program("resumed.py");
}

#[test]
fn a_phase_leaves_the_later_ones_their_least_time() {
    python(
        "from gpu_phase import share\n\
         assert share(20, 70, [30, 40], 480) == 70\n\
         assert share(20, 70, [30, 40], 100) == 30\n\
         assert share(20, 70, [30, 50], 50) == 10\n\
         assert share(20, 70, [], 15) == 15",
    );
}

#[test]
fn the_summary_has_pytorchs_times_in_parts_of_ours() {
    python(
        "from gpu_results import times\n\
         own = {'what': 'resnet50 bf16 b128', 'median_ms': 2.0, 'images_per_s': 64000.0}\n\
         peer = {'what': 'resnet50 bf16 b128 compile', 'peer_ms': 3.0, 'mode': 'compile'}\n\
         found = times([own, peer])\n\
         assert found[1] == '| training step | ms | images/s | PyTorch compile |', found\n\
         assert found[3] == '| resnet50 bf16 b128 | 2.000 | 64000 | 3.000 (1.50) |', found",
    );
}

#[test]
fn a_results_file_that_was_cut_off_keeps_its_whole_lines() {
    python(
        "import pathlib, tempfile\n\
         from gpu_results import read\n\
         with tempfile.TemporaryDirectory() as folder:\n    \
             file = pathlib.Path(folder) / 'results.jsonl'\n    \
             file.write_text('{\"phase\": \"facts\", \"what\": \"a\"}\\n{\"phase\": \"fa')\n    \
             rows, phases = read(folder)\n\
         assert rows == [{'phase': 'facts', 'what': 'a'}] and phases == {}, rows",
    );
}

#[test]
fn the_networks_in_pytorch_have_as_many_values_as_ours() {
    python(
        "import sys\n\
         sys.path.insert(0, 'tests/e2e/gpu/scripts/fake')\n\
         import gpu_peers\n\
         count = lambda name: sum(p.numel() for p in gpu_peers.network(name)[0].parameters())\n\
         assert (count('resnet50'), count('syncbnnet')) == (25557032, 696618)",
    );
}
