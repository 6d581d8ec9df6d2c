"""An NCCL that takes no two ranks on one GPU says so in its file only."""

import pathlib
import tempfile
import types

import numpy as np

from gpu_phase import Impossible
from gpu_ranks import two_ranks
from gpu_run import Failure

folder = pathlib.Path(tempfile.mkdtemp())
path = folder / "net.tf32"
np.savez(folder / "net.npz", x=np.zeros((8, 1)), target=np.zeros(8))
kept = []


def phase(warning):
    def run(words, limit, told):
        log = pathlib.Path(told["NCCL_DEBUG_FILE"].replace("%p", "7"))
        log.write_text(f"host:7:7 [0] NCCL INFO begin\nhost:7:7 [0] init.cc:1 NCCL WARN {warning}\n")
        raise Failure("exit 1: invalid usage", "error: ncclCommInitRank: invalid usage")

    session = types.SimpleNamespace(nccl="libnccl.so.2", device="cuda")
    return types.SimpleNamespace(session=session, run=run, keep=lambda name, text: kept.append(text))


try:
    two_ranks(phase("Duplicate GPU detected : rank 1 and rank 0"), path, folder, {})
    raise AssertionError("it did not fail")
except Impossible as cause:
    assert "Duplicate GPU detected : rank 1" in str(cause), cause
try:
    two_ranks(phase("Call to bind failed"), path, folder, {})
    raise AssertionError("it did not fail")
except Failure as failure:
    assert "invalid usage; NCCL: Call to bind failed" in str(failure), failure
    assert "NCCL INFO begin" in failure.text, failure.text
assert len(kept) == 2 and not list(folder.glob("nccl.*")), kept
