"""The ladder: the smallest networks do a little more on each rung, so that what fails first is known by name."""

import pathlib
import tempfile

import numpy as np

import gpu_sanitizer
from gpu_agreement import SGD, bounds_of, data_of, losses, output, packed, references_of
from gpu_bounds import error
from gpu_phase import Impossible
from gpu_results import BAD, FOUND, NOT_COMPUTED, NOT_RUN, OK, TIMEOUT, WRONG

NETWORKS = ("mlp_bn1d", "syncbnnet_small")
PRECISIONS = ("tf32", "bf16", "f32")
# The driver may have to load a library of gigabytes, or to assemble PTX.
LIMIT = 20
# The first of all makes the first context of a cold machine.
FIRST_LIMIT = 30
BLOCKING = {"CUDA_LAUNCH_BLOCKING": "1"}
PTX = {"SYNCBN_IMAGE": "ptx"}


def ladder(phase):
    """The rungs of both networks; a network ends with the rung that fails, and the first of all is looked into."""
    chosen = networks(phase.session.pack)
    if not chosen:
        raise Impossible("none of its networks is packed")
    sound = True
    for path in chosen:
        sound &= climb(phase, path, sound, FIRST_LIMIT if path == chosen[0] else LIMIT)


def networks(pack):
    """The packed executables of the ladder, one of each network."""
    paths = {path.name: path for path in packed(pack)}
    names = ([f"{network}.{precision}" for precision in PRECISIONS] for network in NETWORKS)
    return [next(paths[name] for name in found if name in paths) for found in names if set(found) & paths.keys()]


def climb(phase, path, look, limit):
    """Whether no rung failed; with `look`, one that did is looked into. The first has `limit` seconds."""
    with tempfile.TemporaryDirectory() as folder:
        data, samples = data_of(path, folder)
        device = ["--device", phase.session.device, "--ranks", 1, "--data", data]
        out, log = pathlib.Path(folder) / "out.npz", pathlib.Path(folder) / "log"
        train = [path, "train", *device, *SGD, "--batch", samples, "--log", log]
        rungs = [
            ("infer", [path, "infer", *device, "-o", out]),
            ("one step, no graphs", [*train, "--steps", 1, "--graphs", "off"]),
            ("six steps, graphs", [*train, "--steps", 6]),
        ]
        for name, command in rungs:
            what = f"{path.stem} {path.suffix[1:]}, {name}"
            verdict = phase.attempt(what, rung, phase, command, path, out, log, limit)
            limit = LIMIT
            if verdict in BAD:
                if look:
                    look_into(phase, what, command, path, out, log, verdict == TIMEOUT)
                return False
        return True


def rung(phase, command, path, out, log, limit=LIMIT, environment=None):
    for file in (out, log):
        file.unlink(missing_ok=True)
    phase.run(command, limit, environment)
    if phase.session.computes_nothing(phase):
        return NOT_COMPUTED, "ended as it should"
    bounds = bounds_of(phase.session.pack, path)
    with references_of(path) as references:
        if out.exists():
            key, found = "eval_before", error(output(out), references["eval_before"])
        else:
            key, found = loss_error(losses(log), references["loss"])
    bound = bounds.array(key)
    return (OK if found <= bound else WRONG), f"error {found:.1e}, bound {bound:.1e}"


def loss_error(found, reference):
    """Of logged losses, the name of what is compared and its error. The references have the first losses; the others
    must be numbers."""
    compared = min(len(found), len(reference))
    if compared == 0 or not np.isfinite(found).all():
        return "loss", float("inf")
    return ("loss1" if compared == 1 else "loss"), error(found[:compared], reference[:compared])


def look_into(phase, what, command, path, out, log, hung):
    """The failed rung again: each launch waited for, PTX instead of the cubin, and under memcheck, which comes before
    PTX where the rung hung."""
    if phase.session.device == "cuda-emulated":
        return
    again = lambda setting: (rung, phase, command, path, out, log, LIMIT, setting)
    blocking = phase.attempt(f"{what}: CUDA_LAUNCH_BLOCKING=1", *again(BLOCKING))
    if hung:
        phase.attempt(f"{what}: memcheck", memcheck, phase, command)
    ptx = phase.attempt(f"{what}: SYNCBN_IMAGE=ptx", *again(PTX))
    if not hung:
        phase.attempt(f"{what}: memcheck", memcheck, phase, command)
    if blocking in BAD and ptx not in (*BAD, NOT_RUN):
        # Only the assembled code is at fault: the others go on without it.
        phase.row("from here on", FOUND, "SYNCBN_IMAGE=ptx", environment=PTX)
        phase.session.environment.update(PTX)


def memcheck(phase, command):
    if not gpu_sanitizer.is_there():
        raise Impossible("compute-sanitizer is not in the path")
    gpu_sanitizer.check(lambda words: phase.run(words, limit=2 * LIMIT), "memcheck", command)
    if phase.session.computes_nothing(phase):
        return NOT_COMPUTED, "ended as it should"
    return OK, "no errors"
