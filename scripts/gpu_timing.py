"""Times training steps of executables, and the same steps in PyTorch."""

import json
import pathlib
import sys

import numpy as np

import gpu_peers
from gpu_run import run, short

HERE = pathlib.Path(__file__).resolve().parent


def timed(pack):
    """The executables to time, NAME.bBATCH.PRECISION: name, batch, precision and path."""
    found = []
    for path in (pack / "time").glob("*.b*.*"):
        name, batch, precision = path.name.rsplit(".", 2)
        found.append((name, int(batch[1:]), precision, path))
    return sorted(found)


def bench_command(path, device, batch, warm_up, steps, graphs="on"):
    """Training steps of one rank, told as one JSON object."""
    bench = [path, "bench", "--json", "--device", device, "--mode", "train", "--ranks", 1, "--batch", batch]
    return [*bench, "--graphs", graphs, "--warmup", warm_up, "--steps", steps]


def figures(text):
    """The JSON object that `bench` wrote."""
    return json.loads(next(line for line in text.splitlines() if line.startswith("{")))


def timing(executables, device, warm_up, steps, report):
    """Training steps of the executables; the median of each, in milliseconds."""
    report.say(f"One rank, {warm_up} steps before and {steps} measured; the time of a step has in it the copy of a")
    report.say("batch from the host (beside the step before), the loss read back, and the update enqueued.", "")
    report.table("network", "precision", "batch", "median ms", "min", "max", "images/s", "replayed")
    medians = {}
    for name, batch, precision, path in executables:
        try:
            own = figures(run(bench_command(path, device, batch, warm_up, steps)))
            times = [f"{own[key]:.3f}" for key in ("median_ms", "min_ms", "max_ms")]
            report.row(name, precision, batch, *times, f"{own['images_per_s']:.0f}", own.get("replayed_steps", ""))
            medians[path] = own["median_ms"]
        except Exception as failure:
            report.bad += 1
            report.row(name, precision, batch, short(failure), "", "", "", "FAILED")
    return medians


def trained_values(text):
    """How many values a network trains, by what its executable's `info --json` wrote."""
    parameters = json.loads(text)["parameters"]
    return sum(int(np.prod(parameter["shape"])) for parameter in parameters if parameter["trained"])


def peer_command(*words):
    return [sys.executable, HERE / "gpu_peers.py", *words]


def last_line(failure):
    """What Python's last exception was, of a command that failed."""
    lines = short(failure).split(" / ")
    return next((line for line in reversed(lines) if "Error: " in line), lines[-1])[:150]


def peer(name, batch, precision, mode, warm_up, steps, own, values):
    """A cell: PyTorch's time and what part of it ours is, or why there is none."""
    try:
        # torch.compile may take minutes for the first step.
        text = run(peer_command(name, batch, precision, mode, warm_up, steps), limit=300)
        found = json.loads(text.splitlines()[-1])
        if "reason" in found:
            return found["reason"]
        if found["parameters"] != values:
            return f"another network: {found['parameters']} trained values, not {values}"
        return f"{found['ms']:.3f} ({found['ms'] / own:.2f})"
    except Exception as failure:
        return last_line(failure)


def against_pytorch(executables, medians, modes, warm_up, steps, report):
    """The same steps in PyTorch, for the networks that gpu_peers.py has."""
    described = json.loads(run(peer_command()).splitlines()[-1])
    if "reason" in described:
        report.say(f"Not compared: {described['reason']}.")
        report.notes.append("PyTorch not compared")
        return
    report.say(f"PyTorch {described['torch']}, channels_last, fused SGD, each measurement in a process of its own: the")
    report.say(f"median of {steps} steps. A step has in it the loss read back and the update enqueued, as ours; its")
    report.say("inputs lie on the GPU already. In brackets: PyTorch's time in parts of ours.", "")
    report.table("network", "precision", "batch", "ms", *modes)
    for name, batch, precision, path in executables:
        if path in medians and name in gpu_peers.NETWORKS and precision in gpu_peers.PRECISIONS:
            values, own = trained_values(run([path, "info", "--json"])), medians[path]
            cells = [peer(name, batch, precision, mode, warm_up, steps, own, values) for mode in modes]
            report.row(name, precision, batch, f"{own:.3f}", *cells)
