"""The facts phase: what machine this is, what it has, and whether a packed executable starts on it."""

import json
import os
import re
import shutil
import sys

from gpu_agreement import packed
from gpu_phase import Impossible
from gpu_results import FAILED, FOUND
from gpu_run import Failure, Timeout

FILE = "facts.txt"
SMI_FIELDS = "name,driver_version,memory.total,compute_cap,compute_mode,mig.mode.current,power.limit,clocks.max.sm"
# What packed executables are compiled for (x86-64-v3), as /proc/cpuinfo calls it.
NEEDED = {"avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe", "xsave"}
TOOLS = ("ncu", "compute-sanitizer", "nvidia-cuda-mps-control", "cuda-gdb", "gdb", "cc")
TORCH = """
import json, pathlib, torch
found = {"torch": torch.__version__, "cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
found["gpu"] = torch.cuda.get_device_name() if torch.cuda.is_available() else None
found["nccl"] = ".".join(map(str, torch.cuda.nccl.version())) if torch.cuda.is_available() else None
places = pathlib.Path(torch.__file__).parents[1].glob("nvidia/nccl/lib/libnccl.so.2")
found["libnccl"] = next(map(str, places), None)
for module in ("torchvision", "triton"):
    try:
        found[module] = __import__(module).__version__
    except Exception as cause:
        found[module] = type(cause).__name__
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
    text = kept(phase, "lscpu", phase.run(["lscpu"]))
    fields = dict(re.findall(r"^\s*([^:\n]+):\s*(.*)$", text, re.MULTILINE))
    missing = sorted(NEEDED - set(fields.get("Flags", "").split()))
    name = f"{fields.get('Model name', 'unknown')}, {fields.get('CPU(s)', '?')} processors"
    if missing:
        return FAILED, f"{name}: packed executables need {', '.join(missing)}"
    return FOUND, f"{name}, x86-64-v3"


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
        text = phase.run([sys.executable, "-c", TORCH])
    except Failure as failure:
        if "No module named 'torch'" in failure.text:
            raise Impossible("there is no PyTorch") from None
        raise
    found = json.loads(text.splitlines()[-1])
    kept(phase, "PyTorch", text)
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
        if "unexpected argument" in failure.text:
            raise Impossible("the executables were made without it") from None
        if phase.session.device == "cuda":
            raise
        raise Impossible(str(failure)) from None
    return FOUND, " / ".join(text.strip().splitlines())[:400]
