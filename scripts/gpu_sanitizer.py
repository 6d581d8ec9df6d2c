"""NVIDIA's compute-sanitizer: how it is called, and what it finds first."""

import shutil

from gpu_agreement import data_of
from gpu_phase import Impossible
from gpu_run import Failure, Timeout
from gpu_tools import unable

TOOL = "compute-sanitizer"
# Its lines begin with this; the program's own do not.
MARK = "========="


def is_there():
    return shutil.which(TOOL) is not None


def check(run, tool, command):
    """Runs a command under a tool of compute-sanitizer; its failure says what was found first. Raises
    `Impossible` where the tool works on no GPU of this machine."""
    words = [TOOL, "--tool", tool, "--error-exitcode", 9, "--target-processes", "all"]
    try:
        text = run([*words, *command])
    except Timeout:
        raise
    except Failure as failure:
        why = unable(failure.text)
        if why:
            raise Impossible(why) from None
        raise Failure(finding(failure), failure.text) from None
    why = unable(text)
    if why:
        raise Impossible(why)


def finding(failure):
    """The first lines of what compute-sanitizer found, or what the command itself complained of."""
    marked = [line.removeprefix(MARK).strip() for line in failure.text.splitlines() if line.startswith(MARK)]
    found = [line for line in marked if line and line != "COMPUTE-SANITIZER"]
    return " / ".join(found[:4]) or str(failure)


def one_step(path, device, folder):
    """The command of one training step of a packed network."""
    data, samples = data_of(path, folder)
    return [path, "train", "--device", device, "--ranks", 1, "--batch", samples, "--steps", 1, "--data", data]
