"""The phases of gpu-first, in the order of what they tell a second: agreement, times, PyTorch, sanitizers."""

import json
import tempfile

import gpu_sanitizer
from gpu_agreement import Runs, bounds_of, packed, references_of
from gpu_counters import counters
from gpu_facts import facts
from gpu_ladder import ladder
from gpu_phase import Impossible, cores
from gpu_ranks import ranks
from gpu_results import FOUND, IMPOSSIBLE, NOT_COMPUTED, OK, WRONG
from gpu_run import Failure, Timeout
from gpu_timing import bench_command, figures, last_line, peer_command, trained_values

PRECISIONS = ("tf32", "bf16", "f32")
WARM_UP, STEPS = 10, 30
# What is timed first; the rest follows.
TIMED = (
    ("resnet50", 128, "bf16"),
    ("syncbnnet", 32, "bf16"),
    ("resnet50", 128, "tf32"),
    ("syncbnnet", 32, "tf32"),
    ("resnet50", 32, "bf16"),
    ("resnet50", 256, "bf16"),
)
# What is compared with PyTorch, in this order.
COMPARED = (
    ("resnet50", 128, "bf16", "eager"),
    ("syncbnnet", 32, "bf16", "reduce-overhead"),
    ("resnet50", 128, "bf16", "compile"),
    ("syncbnnet", 32, "bf16", "eager"),
    ("syncbnnet", 32, "bf16", "compile"),
    ("resnet50", 128, "tf32", "eager"),
    ("resnet50", 32, "bf16", "eager"),
)
# Steps without graphs are timed for this batch: there launches weigh most.
UNGRAPHED_BATCH = 32
CHECKS = ("memcheck", "racecheck", "synccheck")
CHECKED = ("syncbnnet_small.bf16", "syncbnnet_small.tf32", "mlp_bn1d.bf16", "mlp_bn1d.tf32")


def agreement(phase):
    """Every packed development network with one rank, several at a time: right results need no GPU of their own."""
    paths = packed(phase.session.pack)
    if not paths:
        raise Impossible("no development network is packed")
    paths.sort(key=lambda path: (place(PRECISIONS, path.suffix[1:]), path.name))
    attempts = [(f"{path.stem} {path.suffix[1:]}", agree, phase, path) for path in paths]
    phase.side_by_side(attempts, min(8, cores()))


def agree(phase, path):
    session = phase.session
    with tempfile.TemporaryDirectory() as folder, references_of(path) as references:
        runs = Runs(lambda words: phase.run(words, limit=30), path, folder, session.device)
        if session.computes_nothing(phase):
            return NOT_COMPUTED, "ended as it should"
        ratio, where, found, bound = runs.worst(references, bounds_of(session.pack, path))
    text = f"{ratio:.2f} of the bound: {where} {found:.1e}, bound {bound:.1e}"
    return (OK if ratio <= 1 else WRONG), text, {"ratio": ratio, "precision": path.suffix[1:]}


def place(order, key):
    """Where a key comes in an order; what it does not name comes last."""
    return order.index(key) if key in order else len(order)


def timings(phase):
    """Training steps, alone on the GPU."""
    rows = sorted(phase.session.timed(), key=lambda row: (place(TIMED, row[:3]), row))
    if not rows:
        raise Impossible("no network to time is packed")
    for name, batch, precision, path in rows:
        what = f"{name} {precision} b{batch}"
        phase.attempt(what, time_steps, phase, path, batch, "on")
    for name, batch, precision, path in rows:
        if batch == UNGRAPHED_BATCH:
            phase.attempt(f"{name} {precision} b{batch}, no graphs", time_steps, phase, path, batch, "off")


def time_steps(phase, path, batch, graphs):
    own = figures(phase.run(bench_command(path, phase.session.device, batch, WARM_UP, STEPS, graphs), limit=30))
    text = f"{own['median_ms']:.3f} ms ({own['min_ms']:.3f} to {own['max_ms']:.3f})"
    if phase.session.computes_nothing(phase):
        return NOT_COMPUTED, f"{text} of the host's time"
    data = {key: own[key] for key in ("median_ms", "min_ms", "max_ms", "images_per_s")}
    replayed = f", {own['replayed_steps']} of {own['steps']} replayed" if "replayed_steps" in own else ""
    return FOUND, f"{text}, {own['images_per_s']:.0f} images/s{replayed}", data


def peers(phase):
    """The same steps in PyTorch, those of `COMPARED` that are packed."""
    session = phase.session
    if session.device != "cuda":
        raise Impossible("no GPU")
    paths = {row[:3]: row[3] for row in session.timed()}
    wanted = [key for key in COMPARED if key[:3] in paths]
    if not wanted:
        raise Impossible("no network that PyTorch is compared with is packed")
    # One that has not finished may have been slow to load for the first time only.
    if phase.attempt("PyTorch", pytorch, phase) == IMPOSSIBLE:
        return
    for key in wanted:
        name, batch, precision, mode = key
        phase.attempt(f"{name} {precision} b{batch} {mode}", peer, phase, paths[key[:3]], key)


def pytorch(phase):
    described = json.loads(phase.run(peer_command(), limit=60).splitlines()[-1])
    if "reason" in described:
        raise Impossible(described["reason"])
    return FOUND, f"{described['torch']}, {described['device']}"


def peer(phase, path, key):
    try:
        text = phase.run(peer_command(*key, WARM_UP, STEPS), limit=90)
    except Timeout:
        raise
    except Failure as failure:
        raise Failure(last_line(failure), failure.text) from None
    found = json.loads(text.splitlines()[-1])
    if "reason" in found:
        raise Impossible(found["reason"])
    values = trained_values(phase.run([path, "info", "--json"], limit=10))
    if found["parameters"] != values:
        raise Failure(f"another network: {found['parameters']} trained values, not {values}")
    return FOUND, f"{found['ms']:.3f} ms", {"peer_ms": found["ms"], "mode": key[3]}


def sanitizers(phase):
    """One step of one network under each tool of compute-sanitizer, side by side."""
    session = phase.session
    if session.device != "cuda":
        raise Impossible("no GPU")
    if not gpu_sanitizer.is_there():
        raise Impossible("compute-sanitizer is not in the path")
    paths = {path.name: path for path in packed(session.pack)}
    chosen = next((paths[name] for name in CHECKED if name in paths), None)
    if chosen is None:
        raise Impossible("none of its networks is packed")
    what = f"{chosen.stem} {chosen.suffix[1:]}"
    phase.side_by_side([(f"{what} {check}", sanitize, phase, check, chosen) for check in CHECKS], len(CHECKS))


def sanitize(phase, check, path):
    with tempfile.TemporaryDirectory() as folder:
        step = gpu_sanitizer.one_step(path, phase.session.device, folder)
        gpu_sanitizer.check(lambda words: phase.run(words, limit=60), check, step)
    if phase.session.computes_nothing(phase):
        return NOT_COMPUTED, "ended as it should"
    return OK, "no errors"


# Name, least and most seconds, function.
PHASES = (
    ("facts", 5, 25, facts),
    ("ladder", 20, 130, ladder),
    ("agreement", 30, 80, agreement),
    ("timings", 40, 80, timings),
    ("counters", 30, 90, counters),
    ("peers", 45, 200, peers),
    ("sanitizers", 20, 65, sanitizers),
    ("ranks", 20, 60, ranks),
)
