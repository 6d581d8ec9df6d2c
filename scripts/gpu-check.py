"""Runs the packed networks on a GPU against their float64 references, and times training steps.

Prints a report in Markdown, line by line as it is found; the exit status is 1 if anything is wrong.
"""

import argparse
import json
import os
import pathlib
import shutil
import struct
import sys
import tempfile
import time

import numpy as np

import gpu_peers
from gpu_bounds import Bounds, error, spread
from gpu_report import Failure, Report, Timeout, run, short
from gpu_timing import against_pytorch, timed, timing

HERE = pathlib.Path(__file__).resolve().parent
SGD = ["--no-shuffle", "--lr", "0.1", "--momentum", "0.9", "--weight-decay", "1e-4"]
LIBRARY = "SYNCBN_NCCL_LIBRARY"
# One GPU takes two ranks from NCCL 2.30 on; an older one says so in a warning.
SHARED_GPU = {"NCCL_MULTI_RANK_GPU_ENABLE": "1", "NCCL_DEBUG": "WARN"}


def safetensors(path):
    """All tensors of a file, by name."""
    data = pathlib.Path(path).read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    kinds = {"F32": np.float32, "F64": np.float64}
    return {
        name: np.frombuffer(data[8 + length :], kinds[t["dtype"]], int(np.prod(t["shape"])), t["data_offsets"][0])
        .reshape(t["shape"])
        .astype(np.float64)
        for name, t in header.items()
        if name != "__metadata__"
    }


def output(path):
    with np.load(path) as arrays:
        return arrays[arrays.files[0]]


def disagreeing(statistics, ranks):
    """The first statistic of another rank that is not that of rank 0 to the bit, or None."""
    of_rank = [
        {name.partition("/")[2]: array for name, array in statistics.items() if name.startswith(f"rank{rank}/")}
        for rank in range(ranks)
    ]
    for rank in range(1, ranks):
        for name in sorted(of_rank[0].keys() | of_rank[rank].keys()):
            pair = of_rank[0].get(name), of_rank[rank].get(name)
            if any(array is None for array in pair) or pair[0].tobytes() != pair[1].tobytes():
                return f"rank{rank}/{name}"
    return None if of_rank[0] else "statistics"


def compare(executable, references, bounds, device, ranks, flags, environment=None):
    """The largest ratio of error to bound over inference and all that three steps leave: ratio, where, error, bound."""
    with tempfile.TemporaryDirectory() as folder:
        at = pathlib.Path(folder)
        np.savez(at / "d.npz", x=references["x"], target=references["target"])
        infer = [executable, "infer", "--device", device, "--ranks", ranks, "--data", at / "d.npz"]
        run([*infer, "-o", at / "before.npz"], environment)
        train = [executable, "train", "--device", device, "--data", at / "d.npz", *SGD, *flags]
        one = [*train, "--steps", 1, "--save", at / "w1", "--dump-gradients", at / "g", "--dump-outputs", at / "o.npz"]
        run(one, environment)
        three = [*train, "--steps", 3, "--save", at / "w3", "--log", at / "log", "--dump-statistics", at / "s"]
        run(three, environment)
        run([*infer, "--weights", at / "w3", "-o", at / "after.npz"], environment)
        lines = [json.loads(line) for line in (at / "log").read_text().splitlines()]
        losses = [line["loss"] for line in lines if "epoch_end" not in line]
        groups = {"grad": safetensors(at / "g"), "stats1": safetensors(at / "w1"), "stats3": safetensors(at / "w3")}
        groups |= {"param1": groups["stats1"], "param3": groups["stats3"]}
        single = {
            "eval_before": output(at / "before.npz"),
            "train_logits": output(at / "o.npz"),
            "loss": losses,
            "eval_after": output(at / "after.npz"),
        }
        rows = [(name, error(found, references[name]), bounds.array(name)) for name, found in single.items()]
        rows.append(("loss1", error(losses[:1], references["loss"][:1]), bounds.array("loss1")))
        for group, found in groups.items():
            named = {key: key.partition("/")[2] for key in references.files if key.startswith(group + "/")}
            for key, name in named.items():
                rows.append((key, error(found.get(name), references[key]), bounds.array(key)))
            least, most = bounds.group(group)
            found_spread = spread((found.get(name), references[key]) for key, name in named.items())
            rows.append((f"{group}, spread", found_spread, most))
            if found_spread < least:
                rows.append((f"{group}, spread below {least:.0e}: nothing was rounded", float("inf"), least))
        apart = disagreeing(safetensors(at / "s"), ranks)
        if apart is not None:
            rows.append((f"{apart} is not that of rank 0", float("inf"), 0.0))
        ratios = [(found / bound if found < float("inf") else found, key, found, bound) for key, found, bound in rows]
        return max(ratios, key=lambda row: row[0])


def impossible(failure):
    """Whether this machine cannot do it: its NCCL takes no two ranks on one GPU, is too old, or is not there."""
    signs = ["Duplicate GPU detected", "NCCL is too old"]
    if LIBRARY not in os.environ:
        signs.append("no NCCL: ")
    return any(sign in getattr(failure, "text", "") for sign in signs)


def packed(pack):
    """The compiled development networks with their references."""
    return [path for path in sorted((pack / "dev").glob("*.*")) if path.suffix != ".npz"]


def agreement(pack, device, report):
    """Every packed development network; several ranks where one GPU can hold them."""
    report.table("network", "precision", "ranks", "error / bound", "where", "error", "bound", "")
    for path in packed(pack):
        name, precision = path.stem, path.suffix[1:]
        for ranks in (1, 2):
            try:
                references = np.load(path.with_suffix(".npz"))
                bounds = Bounds(pack / "deviation.csv", name, precision)
                flags = ["--ranks", 1, "--batch", len(references["x"])] if ranks == 1 else ["--rank-batches", "5,3"]
                shared = SHARED_GPU if ranks > 1 else None
                ratio, where, found, bound = compare(path, references, bounds, device, ranks, flags, shared)
                verdict = "ok" if ratio <= 1 else "WRONG"
                report.bad += verdict == "WRONG"
                report.row(name, precision, ranks, f"{ratio:.2f}", where, f"{found:.1e}", f"{bound:.1e}", verdict)
            except Exception as failure:
                skip = ranks > 1 and impossible(failure)
                report.impossible += skip
                report.bad += not skip
                verdict = "not possible here" if skip else "FAILED"
                report.row(name, precision, ranks, "", short(failure), "", "", verdict)


def sanitize(pack, device, names, timeout, report):
    """One step of some networks under NVIDIA's compute-sanitizer."""
    tool = shutil.which("compute-sanitizer")
    paths = [path for path in packed(pack) if path.stem in names]
    if tool is None or device != "cuda" or not paths:
        missing = "it is not in the path" if tool is None else "none of its networks is packed"
        why = "no GPU" if device != "cuda" else missing
        report.say(f"compute-sanitizer was not run: {why}.")
        report.notes.append("compute-sanitizer not run")
        return
    unfinished = 0
    for path in paths:
        for check in ["memcheck", "racecheck"]:
            try:
                with tempfile.TemporaryDirectory() as folder, np.load(path.with_suffix(".npz")) as references:
                    np.savez(folder + "/d.npz", x=references["x"], target=references["target"])
                    batch = len(references["x"])
                    step = [path, "train", "--device", device, "--ranks", 1, "--batch", batch, "--steps", 1]
                    command = [tool, "--tool", check, "--error-exitcode", 9, "--target-processes", "all", *step]
                    run([*command, "--data", folder + "/d.npz"], timeout=timeout)
                report.say(f"- {path.name} {check}: ok")
            except Timeout as failure:
                unfinished += 1
                report.say(f"- {path.name} {check}: {short(failure)}")
            except Exception as failure:
                report.bad += 1
                report.say(f"- {path.name} {check}: FAILED, {short(failure)}")
    if unfinished:
        report.notes.append(f"{unfinished} runs of compute-sanitizer not finished")


def part(report, title, function, *arguments):
    """A part of the report, whose failure leaves the others."""
    report.say("", f"## {title}", "")
    try:
        return function(*arguments, report)
    except Exception as failure:
        report.bad += 1
        report.say(f"FAILED: {short(failure)}")
        return {}


def arguments_of(words):
    parser = argparse.ArgumentParser(description=__doc__)
    listed = lambda text: [word for word in text.split(",") if word]
    modes = gpu_peers.MODES
    parser.add_argument("--pack", type=pathlib.Path, default=HERE)
    parser.add_argument("--device", default="cuda", choices=["cuda", "cuda-emulated"])
    parser.add_argument("--batches", type=listed, help="of the packed executables to time (default: all)")
    parser.add_argument("--no-timing", action="store_true")
    parser.add_argument("--warmup", type=int, default=10)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--peers", type=listed, default=list(modes), help=f"of {','.join(modes)}; '' for none")
    small = ["mlp_bn1d", "syncbnnet_small"]
    parser.add_argument("--sanitize", type=listed, default=small, help="networks; '' for none")
    parser.add_argument("--sanitize-timeout", type=int, default=300, help="seconds for each run of compute-sanitizer")
    found = parser.parse_args(words)
    if not set(found.peers) <= set(modes):
        parser.error(f"--peers: modes are {','.join(modes)}")
    found.executables = timed(found.pack)
    if found.batches:
        packed_batches = {str(batch) for _, batch, _, _ in found.executables}
        found.executables = [row for row in found.executables if str(row[1]) in found.batches]
        if packed_batches and not found.executables:
            parser.error(f"--batches: networks to time were packed for {', '.join(sorted(packed_batches, key=int))}")
    return found


def main(words):
    flags = arguments_of(words)
    pack, device = flags.pack, flags.device
    nccl = pack / "lib" / "libnccl.so.2"
    if nccl.exists():
        os.environ.setdefault(LIBRARY, str(nccl.resolve()))
    report = Report()
    report.say("# GPU check", "", f"{time.strftime('%Y-%m-%d')}, device {device}")
    if device == "cuda":
        query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
        try:
            report.say("", run(query, timeout=60).strip())
        except (Failure, OSError) as failure:
            print(f"gpu-check: no GPU here ({failure})", file=sys.stderr)
            return 4
    part(report, "Agreement with the float64 references", agreement, pack, device)
    part(report, "compute-sanitizer", sanitize, pack, device, flags.sanitize, flags.sanitize_timeout)
    if flags.executables and not flags.no_timing:
        pace = flags.warmup, flags.steps
        medians = part(report, "Training steps", timing, flags.executables, device, *pace)
        if device == "cuda" and flags.peers:
            part(report, "Against PyTorch", against_pytorch, flags.executables, medians, flags.peers, *pace)
    report.end()
    return int(report.bad != 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
