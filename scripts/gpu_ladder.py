"""The ladder: the smallest networks do a little more on each rung, so that what fails first is known by name."""

import contextlib
import pathlib
import tempfile

import gpu_sanitizer
from gpu_agreement import bounds_of, data_of, output, packed, references_of
from gpu_bounds import error
from gpu_phase import Impossible
from gpu_results import BAD, FOUND, NOT_COMPUTED, NOT_RUN, OK, WRONG

NETWORKS = ("mlp_bn1d", "syncbnnet_small")
PRECISIONS = ("tf32", "bf16", "f32")
# The driver may have to load a library of gigabytes, or to assemble PTX.
LIMIT = 20
BLOCKING = {"CUDA_LAUNCH_BLOCKING": "1"}
PTX = {"SYNCBN_IMAGE": "ptx"}


def ladder(phase):
    """The rungs of both networks; a network ends with the rung that fails, and the first of all is looked into."""
    chosen = networks(phase.session.pack)
    if not chosen:
        raise Impossible("none of its networks is packed")
    sound = True
    for path in chosen:
        sound &= climb(phase, path, sound)


def networks(pack):
    """The packed executables of the ladder, one of each network."""
    paths = {path.name: path for path in packed(pack)}
    names = ([f"{network}.{precision}" for precision in PRECISIONS] for network in NETWORKS)
    return [next(paths[name] for name in found if name in paths) for found in names if set(found) & paths.keys()]


def climb(phase, path, look):
    """Whether no rung failed; with `look`, one that did is looked into."""
    with tempfile.TemporaryDirectory() as folder:
        data, samples = data_of(path, folder)
        device = ["--device", phase.session.device, "--ranks", 1, "--data", data]
        out = pathlib.Path(folder) / "out.npz"
        train = [path, "train", *device, "--batch", samples]
        rungs = [
            ("infer", [path, "infer", *device, "-o", out]),
            ("one step, no graphs", [*train, "--steps", 1, "--graphs", "off"]),
            ("six steps, graphs", [*train, "--steps", 6]),
        ]
        for name, command in rungs:
            what = f"{path.stem} {path.suffix[1:]}, {name}"
            if phase.attempt(what, rung, phase, command, path, out) in BAD:
                if look:
                    look_into(phase, what, command, path, out)
                return False
        return True


def rung(phase, command, path, out, environment=None):
    with contextlib.suppress(FileNotFoundError):
        out.unlink()
    phase.run(command, LIMIT, environment)
    if phase.session.computes_nothing(phase):
        return NOT_COMPUTED, "ended as it should"
    if not out.exists():
        return OK, "ended as it should"
    bound = bounds_of(phase.session.pack, path).array("eval_before")
    with references_of(path) as references:
        found = error(output(out), references["eval_before"])
    return (OK if found <= bound else WRONG), f"error {found:.1e}, bound {bound:.1e}"


def look_into(phase, what, command, path, out):
    """The failed rung again: each launch waited for, PTX instead of the cubin, and under memcheck."""
    if phase.session.device == "cuda-emulated":
        return
    phase.attempt(f"{what}: CUDA_LAUNCH_BLOCKING=1", rung, phase, command, path, out, BLOCKING)
    verdict = phase.attempt(f"{what}: SYNCBN_IMAGE=ptx", rung, phase, command, path, out, PTX)
    phase.attempt(f"{what}: memcheck", memcheck, phase, command)
    if verdict not in (*BAD, NOT_RUN):
        # Only the assembled code is at fault: the others go on without it.
        phase.session.environment.update(PTX)
        phase.row("from here on", FOUND, "SYNCBN_IMAGE=ptx", environment=PTX)


def memcheck(phase, command):
    if not gpu_sanitizer.is_there():
        raise Impossible("compute-sanitizer is not in the path")
    gpu_sanitizer.check(lambda words: phase.run(words, limit=2 * LIMIT), "memcheck", command)
    if phase.session.computes_nothing(phase):
        return NOT_COMPUTED, "ended as it should"
    return OK, "no errors"
