"""A run that goes on in the folder of one that was cut off."""

import contextlib
import io
import json
import pathlib
import tempfile

from gpu_results import Results, read

folder = pathlib.Path(tempfile.mkdtemp())
lines = [
    {"phase": "facts", "what": "a", "verdict": "found", "text": "b"},
    {"phase": "ranks", "what": "c", "verdict": "FAILED", "text": "d"},
    {"phase": "facts", "state": "finished", "seconds": 1, "end": True},
    {"phase": "ranks", "state": "cut off", "seconds": 1, "end": True},
]
(folder / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
(folder / "facts.txt").write_text("=== lscpu\nx\n")
(folder / "nccl.txt").write_text("=== net\nold\n")
(folder / "failures.txt").write_text("=== facts: a: FAILED\n=== b\n=== ranks: c: FAILED\nd\n=== e\n")
with contextlib.redirect_stdout(io.StringIO()):
    Results(folder, 0).begin(folder)
rows, phases = read(folder)
assert rows == lines[:1] and list(phases) == ["facts"], (rows, phases)
assert (folder / "facts.txt").exists() and not (folder / "nccl.txt").exists()
assert (folder / "failures.txt").read_text() == "=== facts: a: FAILED\n=== b\n"
assert "| before | facts | a | found | b |" in (folder / "report.md").read_text()
assert sorted(path.name for path in folder.iterdir()) == ["facts.txt", "failures.txt", "report.md", "results.jsonl"]
