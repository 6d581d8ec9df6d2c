"""The facts phase: what machine this is, what it has, and whether a packed executable starts on it."""

import json
import os
import pathlib
import re
import shutil
import sys

from gpu_agreement import packed
from gpu_phase import Impossible, cores
from gpu_ranks import of_pytorch
from gpu_results import FOUND, NOT_RUN
from gpu_run import Failure, Timeout

FILE = "facts.txt"
SMI_FIELDS = "name,driver_version,memory.total,compute_cap,compute_mode,mig.mode.current,power.limit,clocks.max.sm"
# What x86-64-v3 has, as /proc/cpuinfo calls it. Packed executables' code for the host needs less.
V3 = ("avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe", "xsave")
CPUINFO = pathlib.Path("/proc/cpuinfo")
TOOLS = ("ncu", "compute-sanitizer", "nvidia-cuda-mps-control", "cuda-gdb", "gdb", "cc")
# Less than the phase has, so that its end cuts nothing off.
TORCH_LIMIT = 20
TORCH = """
import importlib.metadata, json, torch
found = {"torch": torch.__version__, "cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
found["gpu"] = torch.cuda.get_device_name() if torch.cuda.is_available() else None
found["nccl"] = ".".join(map(str, torch.cuda.nccl.version())) if torch.cuda.is_available() else None
for module in ("torchvision", "triton"):
    try:
        found[module] = importlib.metadata.version(module)
    except importlib.metadata.PackageNotFoundError:
        found[module] = None
print(json.dumps(found))
"""


def facts(phase):
    """Everything at once: none of it needs the GPU alone."""
    session = phase.session
    attempts = [
        ("processor", processor, phase),
        ("driver", driver, phase),
        ("nvidia-smi", nvidia_smi, phase),
        ("loader", loader, phase),
        ("tools", tools),
        ("PyTorch", pytorch, phase),
    ]
    paths = packed(session.pack)
    if paths:
        attempts += [("info", info, phase, paths[0]), ("info --device", info_device, phase, paths[0])]
    phase.side_by_side(attempts, len(attempts))


def kept(phase, title, text):
    phase.keep(FILE, f"=== {title}\n{text.strip()}\n")
    return text


def processor(phase):
    """By lscpu, or by the kernel where there is none; a flag may be hidden, and `info` tells whether executables run."""
    try:
        text = kept(phase, "lscpu", phase.run(["lscpu"], environment={"LC_ALL": "C"}))
    except Timeout:
        raise
    except Failure:
        text = kept(phase, "cpuinfo", CPUINFO.read_text(encoding="utf-8", errors="replace").split("\n\n")[0])
    lines = re.findall(r"^\s*([^:\n]+?)\s*:\s*(.*)$", text, re.MULTILINE)
    fields = {name.lower(): value for name, value in lines}
    flags = fields.get("flags", "").split()
    missing = [flag for flag in V3 if flag not in flags]
    without = f" without {', '.join(missing)}" if missing else ""
    name = f"{fields.get('model name', 'unknown')}, {fields.get('cpu(s)', cores())} processors"
    return FOUND, f"{name}, x86-64-v3{without}", {"flags": flags}


def driver(phase):
    try:
        found = phase.session.gpu(phase)
    except Timeout:
        raise
    except Failure as failure:
        if phase.session.device == "cuda":
            raise
        raise Impossible(str(failure)) from None
    kept(phase, "driver", json.dumps(found))
    return FOUND, ", ".join(f"{key} {value}" for key, value in found.items()), {"gpu": found}


def nvidia_smi(phase):
    if shutil.which("nvidia-smi") is None:
        raise Impossible("nvidia-smi is not in the path")
    kept(phase, "nvidia-smi", phase.run(["nvidia-smi"], limit=15))
    text = phase.run(["nvidia-smi", f"--query-gpu={SMI_FIELDS}", "--format=csv,noheader"], limit=15)
    return FOUND, text.strip()


def loader(phase):
    tool = shutil.which("ldconfig", path=os.environ.get("PATH", "") + ":/sbin:/usr/sbin")
    if tool is None:
        raise Impossible("there is no ldconfig")
    lines = phase.run([tool, "-p"]).splitlines()
    found = [line.strip() for line in lines if re.search(r"libcuda\.so|libnccl\.so|libcudart\.so", line)]
    kept(phase, "ldconfig -p", "\n".join(found))
    return FOUND, "; ".join(line.rpartition("=> ")[2] for line in found) or "knows neither libcuda nor libnccl"


def tools():
    found = [f"{tool} {'is' if shutil.which(tool) else 'is not'} there" for tool in TOOLS]
    return FOUND, ", ".join(found)


def pytorch(phase):
    try:
        text = phase.run([sys.executable, "-c", TORCH], limit=TORCH_LIMIT)
    except Timeout as failure:
        # The first import reads gigabytes: it is the phase `peers` that needs it.
        return NOT_RUN, f"{failure}; the phase peers tries it again", {"libnccl": of_pytorch()}
    except Failure as failure:
        if "No module named 'torch'" in failure.text:
            raise Impossible("there is no PyTorch") from None
        raise
    found = {**json.loads(text.splitlines()[-1]), "libnccl": of_pytorch() or None}
    kept(phase, "PyTorch", json.dumps(found))
    return FOUND, ", ".join(f"{key} {value}" for key, value in found.items()), {"torch": found}


def info(phase, path):
    text = kept(phase, "info", phase.run([path, "info"], limit=10))
    return FOUND, f"{path.name} starts: {text.strip().splitlines()[0]}"


def info_device(phase, path):
    try:
        text = kept(phase, "info --device", phase.run([path, "info", "--device"], limit=15))
    except Timeout:
        raise
    except Failure as failure:
        if phase.session.device == "cuda":
            raise
        raise Impossible(str(failure)) from None
    return FOUND, " / ".join(text.strip().splitlines())[:400]
