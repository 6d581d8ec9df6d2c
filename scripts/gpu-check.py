"""Runs the packed networks on a GPU against their float64 references, and times training steps.

Prints a report in Markdown; the exit status is 1 if anything is wrong.
"""

import argparse
import json
import os
import pathlib
import shutil
import struct
import subprocess
import sys
import tempfile
import time

import numpy as np

import gpu_peers

# Largest error of an array, in parts of its largest magnitude (at least 1e-3).
LIMITS = {"f32": 1e-4, "tf32": 2e-2, "bf16": 1e-1}
SGD = ["--no-shuffle", "--lr", "0.1", "--momentum", "0.9", "--weight-decay", "1e-4"]


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


def error(found, reference):
    found, reference = np.asarray(found, np.float64), np.asarray(reference, np.float64)
    if found.shape != reference.shape or not np.isfinite(found).all():
        return float("inf")
    return float(np.abs(found - reference).max(initial=0) / max(np.abs(reference).max(initial=0), 1e-3))


class Failure(Exception):
    pass


def run(command, environment=None, timeout=900):
    result = subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**os.environ, **(environment or {})},
    )
    if result.returncode:
        tail = (result.stderr or result.stdout)[-500:].strip().replace("\n", " / ")
        raise Failure(f"exit {result.returncode}: {tail}")
    return result.stdout + result.stderr


def compare(executable, references, device, flags, environment=None):
    """The largest error over everything that three steps leave, and where it is."""
    with tempfile.TemporaryDirectory() as folder:
        at = pathlib.Path(folder)
        np.savez(at / "d.npz", x=references["x"], target=references["target"])
        common = [executable, "train", "--device", device, "--data", at / "d.npz", *SGD, *flags]
        one = [*common, "--steps", 1, "--save", at / "w1", "--dump-gradients", at / "g", "--dump-outputs", at / "o.npz"]
        run(one, environment)
        run([*common, "--steps", 3, "--save", at / "w3", "--log", at / "log"], environment)
        infer = [executable, "infer", "--device", device, "--ranks", 1, "--data", at / "d.npz"]
        run([*infer, "--weights", at / "w3", "-o", at / "i.npz"], environment)
        lines = [json.loads(line) for line in (at / "log").read_text().splitlines()]
        groups = {"grad": safetensors(at / "g"), "stats1": safetensors(at / "w1"), "stats3": safetensors(at / "w3")}
        groups |= {"param1": groups["stats1"], "param3": groups["stats3"]}
        single = {
            "loss": [line["loss"] for line in lines if "epoch_end" not in line],
            "train_logits": next(iter(np.load(at / "o.npz").values())),
            "eval_after": next(iter(np.load(at / "i.npz").values())),
        }
        errors = [(error(single[name], references[name]), name) for name in single]
        for key in references.files:
            group, _, name = key.partition("/")
            if group in groups:
                found = groups[group].get(name)
                errors.append((float("inf") if found is None else error(found, references[key]), key))
        return max(errors)


def dev(pack, device, report):
    """Every packed development network; several ranks where one GPU can hold them."""
    report.append("| network | precision | ranks | largest error | where | |\n|---|---|---|---|---|---|")
    bad = 0
    shared = {"NCCL_MULTI_RANK_GPU_ENABLE": "1"}
    for path in sorted((pack / "dev").glob("*.*")):
        if path.suffix == ".npz":
            continue
        precision = path.suffix[1:]
        references = np.load(path.with_suffix(".npz"))
        batch = len(references["x"])
        for ranks, flags in [("1", ["--ranks", 1, "--batch", batch]), ("2", ["--rank-batches", "5,3"])]:
            try:
                worst, where = compare(path, references, device, flags, shared if ranks != "1" else None)
                verdict = "ok" if worst <= LIMITS[precision] else "WRONG"
                report.append(f"| {path.stem} | {precision} | {ranks} | {worst:.1e} | {where} | {verdict} |")
            except Failure as failure:
                # One GPU takes two ranks from NCCL 2.30 on.
                skip = ranks != "1" and ("uplicate GPU" in str(failure) or "libnccl" in str(failure))
                verdict = "not possible here" if skip else "FAILED"
                report.append(f"| {path.stem} | {precision} | {ranks} | | {failure} | {verdict} |")
            bad += verdict in ("WRONG", "FAILED")
    return bad


def sanitize(pack, device, report):
    """One step of each network under NVIDIA's compute-sanitizer."""
    tool = shutil.which("compute-sanitizer")
    if tool is None or device != "cuda":
        report.append("compute-sanitizer was not run: " + ("it is not in the path." if tool is None else "no GPU."))
        return 0
    bad = 0
    for path in sorted((pack / "dev").glob("*.*")):
        if path.suffix == ".npz":
            continue
        with tempfile.TemporaryDirectory() as folder:
            references = np.load(path.with_suffix(".npz"))
            np.savez(folder + "/d.npz", x=references["x"], target=references["target"])
            for check in ["memcheck", "racecheck"]:
                step = [path, "train", "--device", device, "--ranks", 1, "--batch", 8, "--steps", 1]
                command = [tool, "--tool", check, "--error-exitcode", 9, "--target-processes", "all", *step]
                try:
                    run([*command, "--data", folder + "/d.npz"])
                    report.append(f"- {path.name} {check}: ok")
                except Failure as failure:
                    bad += 1
                    report.append(f"- {path.name} {check}: FAILED, {failure}")
    return bad


def timing(pack, device, batches, report):
    """Training steps of the packed networks, and of PyTorch's in the same run, for those that gpu_peers.py has."""
    report.append("| network | precision | batch | ms | PyTorch ms | torch.compile ms | ratios |")
    report.append("|---|---|---|---|---|---|---|")
    bad = 0
    for path in sorted((pack / "time").glob("*.*")):
        precision = path.suffix[1:]
        for batch in batches:
            peers = [None, None]
            try:
                command = [path, "bench", "--json", "--device", device, "--mode", "train", "--ranks", 1, "--batch", batch]
                text = run(command)
                own = json.loads(next(line for line in text.splitlines() if line.startswith("{")))["median_ms"]
                if device == "cuda":
                    peers = [gpu_peers.milliseconds(path.stem, batch, precision, c) for c in (False, True)]
                words = ["" if peer is None else f"{peer:.2f}" for peer in peers]
                ratios = ", ".join(f"{peer / own:.2f}" for peer in peers if peer is not None)
                report.append(f"| {path.stem} | {precision} | {batch} | {own:.2f} | {words[0]} | {words[1]} | {ratios} |")
            except Failure as failure:
                bound = "the bound" in str(failure) or "compiled for" in str(failure)
                bad += not bound
                report.append(f"| {path.stem} | {precision} | {batch} | {'past its bound' if bound else failure} | | | |")
    return bad


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pack", type=pathlib.Path, required=True)
    parser.add_argument("--device", default="cuda", choices=["cuda", "cuda-emulated"])
    parser.add_argument("--batches", default="8,32,128")
    parser.add_argument("--no-timing", action="store_true")
    arguments = parser.parse_args()
    nccl = arguments.pack / "lib" / "libnccl.so.2"
    if nccl.exists():
        os.environ.setdefault("SYNCBN_NCCL_LIBRARY", str(nccl.resolve()))
    report = ["# GPU check", "", f"{time.strftime('%Y-%m-%d')}, device {arguments.device}", ""]
    if arguments.device == "cuda":
        query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
        try:
            report += [run(query).strip(), ""]
        except (Failure, FileNotFoundError) as failure:
            print(f"gpu-check: no GPU here ({failure})", file=sys.stderr)
            sys.exit(4)
    report += ["## Agreement with the float64 references", ""]
    bad = dev(arguments.pack, arguments.device, report)
    report += ["", "## compute-sanitizer", ""]
    bad += sanitize(arguments.pack, arguments.device, report)
    if not arguments.no_timing:
        report += ["", "## Training steps", ""]
        batches = [int(batch) for batch in arguments.batches.split(",")]
        bad += timing(arguments.pack, arguments.device, batches, report)
    report += ["", "all well" if bad == 0 else f"**{bad} wrong**"]
    print("\n".join(report))
    sys.exit(bad != 0)


if __name__ == "__main__":
    main()
