"""Two ranks on one GPU: where NCCL is, what it must be told, and the phase of gpu-first that tries it."""

import contextlib
import importlib.util
import os
import pathlib
import shutil
import signal
import tempfile
import time

from gpu_agreement import Runs, bounds_of, references_of
from gpu_ladder import networks
from gpu_phase import Impossible
from gpu_results import NOT_COMPUTED, OK, WRONG
from gpu_run import Failure, kill_session

LIBRARY = "SYNCBN_NCCL_LIBRARY"
FILE = "nccl.txt"
# One GPU takes two ranks from NCCL 2.30 on; an older one says so in a warning.
SHARED_GPU = {"NCCL_MULTI_RANK_GPU_ENABLE": "1", "NCCL_DEBUG": "WARN"}
# Two processes share the multiprocessors: few blocks each, so that neither waits for room that the other holds.
FEW_BLOCKS = {"NCCL_MULTI_RANK_GPU_ENABLE": "1", "NCCL_MAX_CTAS": "4", "NCCL_DEBUG": "INFO"}
LIMIT = 20
MPS = "nvidia-cuda-mps-control"


def nccl_of(pack):
    """The packed NCCL, in the folder gpu-nccl beside the pack, or None."""
    path = pack.resolve().parent / "gpu-nccl" / "libnccl.so.2"
    return path if path.exists() else None


def impossible(failure):
    """Whether this machine cannot do it: its NCCL takes no two ranks on one GPU, is too old, or is not there."""
    signs = ["Duplicate GPU detected", "NCCL is too old"]
    if LIBRARY not in os.environ:
        signs.append("no NCCL: ")
    return any(sign in getattr(failure, "text", "") for sign in signs)


def ranks(phase):
    """Each network of the ladder with two ranks: under MPS where it starts, and without where that fails."""
    paths = networks(phase.session.pack)
    if not paths:
        raise Impossible("none of its networks is packed")
    with tempfile.TemporaryDirectory() as folder:
        if phase.session.device != "cuda":
            return all_networks(phase, paths, folder, "no GPU", {})
        server = Mps(phase, folder)
        verdict = phase.attempt("MPS", server.start)
        try:
            if verdict == OK and all_networks(phase, paths, folder, "MPS", server.environment):
                return None
        finally:
            server.end()
        return all_networks(phase, paths, folder, "no MPS", {})


def all_networks(phase, paths, folder, how, environment):
    """Whether all networks ended as they should; the first that does not ends it."""
    for path in paths:
        what = f"{path.stem} {path.suffix[1:]}, 2 ranks, {how}"
        if phase.attempt(what, two_ranks, phase, path, folder, environment) not in (OK, NOT_COMPUTED):
            return False
    return True


def two_ranks(phase, path, folder, environment):
    session = phase.session
    nccl = session.nccl or ("" if LIBRARY in os.environ else of_pytorch())
    log = pathlib.Path(folder) / "nccl.%p"
    told = {**FEW_BLOCKS, "NCCL_DEBUG_FILE": str(log), **environment}
    if nccl:
        told[LIBRARY] = str(nccl)
    try:
        with tempfile.TemporaryDirectory() as left, references_of(path) as references:
            runs = Runs(lambda words: phase.run(words, LIMIT, told), path, left, session.device, ranks=2)
            if session.computes_nothing(phase):
                return NOT_COMPUTED, "ended as it should"
            ratio, where, found, bound = runs.worst(references, bounds_of(session.pack, path))
    except Failure as failure:
        failure = with_log(failure, log_of(folder))
        if impossible(failure):
            raise Impossible(str(failure)) from None
        raise failure from None
    finally:
        log = log_of(folder)
        if log:
            phase.keep(FILE, f"=== {path.name}\n{log}")
        for file in pathlib.Path(folder).glob("nccl.*"):
            file.unlink()
    return (OK if ratio <= 1 else WRONG), f"{ratio:.2f} of the bound: {where} {found:.1e}, bound {bound:.1e}"


def log_of(folder):
    """What NCCL wrote into its files, warnings too."""
    files = sorted(pathlib.Path(folder).glob("nccl.*"))
    return "".join(file.read_text(encoding="utf-8", errors="replace") for file in files)


def with_log(failure, log):
    """The failure with what NCCL wrote, and its warnings in the reason."""
    warnings = [line.partition("NCCL WARN ")[2].strip() for line in log.splitlines() if "NCCL WARN " in line]
    reason = "; NCCL: ".join([str(failure), *dict.fromkeys(warnings[:2])])
    return type(failure)(reason, f"{failure.text}\n{log}")


def of_pytorch():
    """PyTorch's own NCCL, found without importing PyTorch, which may take a minute; empty where there is none."""
    found = importlib.util.find_spec("torch")
    if found is None or not found.origin:
        return ""
    path = pathlib.Path(found.origin).parents[1] / "nvidia" / "nccl" / "lib" / "libnccl.so.2"
    return str(path) if path.exists() else ""


class Mps:
    """A daemon of our own for CUDA's multi-process service, which ends with the phase."""

    def __init__(self, phase, folder):
        self.phase = phase
        self.pipes = pathlib.Path(folder) / "mps"
        self.environment = {"CUDA_MPS_PIPE_DIRECTORY": str(self.pipes), "CUDA_MPS_LOG_DIRECTORY": str(self.pipes)}

    def start(self):
        if shutil.which(MPS) is None:
            raise Impossible(f"{MPS} is not in the path")
        self.pipes.mkdir()
        self.phase.run([MPS, "-d"], 5, self.environment)
        return OK, "the daemon has started"

    def end(self):
        """Has the daemon quit, and kills one that does not."""
        try:
            daemon = int((self.pipes / f"{MPS}.pid").read_text())
        except (OSError, ValueError):
            return
        with contextlib.suppress(Exception):
            self.phase.run(["sh", "-c", f"echo quit | {MPS}"], 5, self.environment)
            end = time.monotonic() + 2
            while pathlib.Path(f"/proc/{daemon}").exists() and time.monotonic() < end:
                time.sleep(0.1)
        # Its servers are in its session, where it leads one.
        kill_session(daemon)
        with contextlib.suppress(OSError):
            os.kill(daemon, signal.SIGKILL)
