"""Runs packed networks, and compares what they leave with their float64 references."""

import json
import pathlib
import struct
import tempfile

import numpy as np

from gpu_bounds import Bounds, error, spread

SGD = ["--no-shuffle", "--lr", "0.1", "--momentum", "0.9", "--weight-decay", "1e-4"]


def packed(pack):
    """The compiled development networks, NAME.PRECISION, beside their references NAME.npz."""
    return [path for path in sorted((pack / "dev").glob("*.*")) if path.suffix != ".npz"]


def references_of(path):
    return np.load(path.with_suffix(".npz"))


def bounds_of(pack, path):
    return Bounds(pack / "deviation.csv", path.stem, path.suffix[1:])


def data_of(path, folder):
    """The inputs and targets of a packed network as a file for the executable, and the number of samples."""
    data = pathlib.Path(folder) / "d.npz"
    with references_of(path) as references:
        np.savez(data, x=references["x"], target=references["target"])
        return data, len(references["x"])


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
    """The first array of an npz file."""
    with np.load(path) as arrays:
        return arrays[arrays.files[0]]


def losses(path):
    """The losses of the steps of a log; what is no number there is NaN."""
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    steps = [line["loss"] for line in lines if "epoch_end" not in line]
    return [float("nan") if loss is None else float(loss) for loss in steps]


class Runs:
    """What a packed network leaves in a folder: one step, three steps, and with `inferences` what it infers before
    and after. `run` runs a command; `ranks` other than 1 share the eight samples as 5 and 3."""

    def __init__(self, run, path, folder, device, ranks=1, inferences=False):
        self.at, self.ranks = pathlib.Path(folder), ranks
        data, samples = data_of(path, folder)
        flags = ["--ranks", 1, "--batch", samples] if ranks == 1 else ["--rank-batches", "5,3"]
        train = [path, "train", "--device", device, "--data", data, *SGD, *flags]
        infer = [path, "infer", "--device", device, "--ranks", ranks, "--data", data]
        at = self.at
        if inferences:
            run([*infer, "-o", at / "before.npz"])
        run([*train, "--steps", 1, "--save", at / "w1", "--dump-gradients", at / "g", "--dump-outputs", at / "o.npz"])
        run([*train, "--steps", 3, "--save", at / "w3", "--log", at / "log", "--dump-statistics", at / "s"])
        if inferences:
            run([*infer, "--weights", at / "w3", "-o", at / "after.npz"])

    def worst(self, references, bounds):
        """The largest ratio of error to bound: ratio, where, error, bound."""
        at = self.at
        logged = losses(at / "log")
        single = {"train_logits": output(at / "o.npz"), "loss": logged}
        for name, file in [("eval_before", "before.npz"), ("eval_after", "after.npz")]:
            if (at / file).exists():
                single[name] = output(at / file)
        rows = [(name, error(found, references[name]), bounds.array(name)) for name, found in single.items()]
        rows.append(("loss1", error(logged[:1], references["loss"][:1]), bounds.array("loss1")))
        groups = {"grad": safetensors(at / "g"), "stats1": safetensors(at / "w1"), "stats3": safetensors(at / "w3")}
        groups.update(param1=groups["stats1"], param3=groups["stats3"])
        for group, found in groups.items():
            rows += group_rows(group, found, references, bounds)
        apart = disagreeing(safetensors(at / "s"), self.ranks)
        if apart is not None:
            rows.append((f"{apart} is not that of rank 0", float("inf"), 0.0))
        ratios = [(found / bound if found < float("inf") else found, key, found, bound) for key, found, bound in rows]
        return max(ratios, key=lambda row: row[0])


def group_rows(group, found, references, bounds):
    """Key, error and bound of the arrays of a group, and of its spread."""
    named = {key: key.partition("/")[2] for key in references.files if key.startswith(group + "/")}
    rows = [(key, error(found.get(name), references[key]), bounds.array(key)) for key, name in named.items()]
    least, most = bounds.group(group)
    found_spread = spread((found.get(name), references[key]) for key, name in named.items())
    rows.append((f"{group}, spread", found_spread, most))
    if found_spread < least:
        rows.append((f"{group}, spread below {least:.0e}: nothing was rounded", float("inf"), least))
    return rows


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


def compare(run, pack, path, device, ranks=1, inferences=False):
    """Runs a packed network and compares all that it leaves: ratio, where, error, bound."""
    with tempfile.TemporaryDirectory() as folder, references_of(path) as references:
        runs = Runs(run, path, folder, device, ranks, inferences)
        return runs.worst(references, bounds_of(pack, path))
