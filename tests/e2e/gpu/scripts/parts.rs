//! Parts of gpu-first that need no executable.

use std::process::Command;

use super::{ended, script};

/// Runs Python that finds the scripts' modules, where there is Python.
#[track_caller]
fn python(program: &str) {
    let mut command = Command::new("python3");
    command.args(["-c", program]).env("PYTHONPATH", script(""));
    if let Ok(output) = command.output() {
        ended(&output, 0);
    }
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
