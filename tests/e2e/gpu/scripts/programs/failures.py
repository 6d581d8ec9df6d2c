"""A phase's exception, a full disk, and an exception where none is expected."""

import contextlib
import importlib.machinery
import importlib.util
import io
import pathlib
import sys
import tempfile

import gpu_run
from gpu_results import OK, Results

loader = importlib.machinery.SourceFileLoader("gpu_first", "scripts/gpu-first")
first = importlib.util.module_from_spec(importlib.util.spec_from_loader("gpu_first", loader))
loader.exec_module(first)
scratch = pathlib.Path(tempfile.mkdtemp())


def main(name, phases, *more):
    """gpu-first with other phases: its exit status and summary."""
    pack = scratch / "pack"
    (pack / "dev").mkdir(parents=True, exist_ok=True)
    (pack / "dev" / "a.tf32").touch()
    first.PHASES = phases
    with contextlib.redirect_stdout(io.StringIO()) as told:
        code = first.main(["--pack", str(pack), "--device", "cuda-emulated", "--output", str(scratch / name), *more])
    # Each run is a process of its own elsewhere.
    gpu_run._state.stopped = False
    return code, told.getvalue()


def right(phase):
    phase.attempt("a", lambda: (OK, phase.run([sys.executable, "-c", "print(7)"]).strip()))


def breaks(phase):
    """One attempt's row cannot be made; the other ends as it should."""
    attempt = phase.attempt

    def failing(what, *rest):
        if what == "bad":
            raise OSError("no space")
        return attempt(what, *rest)

    phase.attempt = failing
    phase.side_by_side([("bad", None), ("good", lambda: (OK, "good"))], 2)


code, told = main("broken", (("breaks", 1, 9, breaks), ("right", 1, 9, right)))
assert code == 1 and "breaks |  | FAILED | OSError: no space" in told, told
assert "breaks | good | ok" in told and "right | a | ok | 7" in told, told

# A file that takes nothing stands for a full disk.
folder = scratch / "full"
folder.mkdir()
results = Results(folder, 0)
for name in ("report.md", "results.jsonl", "failures.txt"):
    (folder / name).symlink_to("/dev/full")
with contextlib.redirect_stdout(io.StringIO()) as told:
    results.row("facts", "a", OK, "well")
    results.keep("failures.txt", "text")
    results.end_phase("facts", "finished", 1)
    results.summary("title", ["facts"], "the end")
assert "| facts | a | ok | well |" in told.getvalue() and "cannot be written: report.md: No space" in told.getvalue()
assert results.is_finished("facts") and "the end" in (folder / "summary.md").read_text()

# Even where the machinery itself fails, the summary comes.
first.share = lambda *words: 1 / 0
code, told = main("machinery", (("right", 1, 9, right),))
assert code == 1 and "**ended by ZeroDivisionError" in told, told
