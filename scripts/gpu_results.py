"""What gpu-first found: rows that are written as they come, and a summary of them."""

import contextlib
import json
import os
import pathlib
import re
import threading
import time

from gpu_report import table_head, table_row

OK = "ok"
FOUND = "found"
NOT_COMPUTED = "not computed"
IMPOSSIBLE = "not possible here"
NOT_RUN = "not run"
WRONG = "WRONG"
FAILED = "FAILED"
TIMEOUT = "NOT FINISHED"
BAD = (WRONG, FAILED, TIMEOUT)

# States of a phase, beside IMPOSSIBLE where nothing of it could be tried. Only a finished one is not run again by
# --resume.
FINISHED = "finished"
CUT = "cut off"

RESULTS = "results.jsonl"
REPORT = "report.md"
SUMMARY = "summary.md"
FAILURES = "failures.txt"
# With the three above and FAILURES these are all the files there may be: at most eight leave some machines.
# Whose they are; that of several phases is in sections, which begin with `=== PHASE: `.
KEPT = {
    "facts.txt": "facts",
    FAILURES: None,
    "nccl.txt": "ranks",
    "counters-1.csv": "counters",
    "counters-2.csv": "counters",
}
KEPT_BYTES = 4 << 20


class Results:
    """The output folder. Every row goes there and to standard output at once."""

    def __init__(self, folder, start):
        self.folder, self.start = pathlib.Path(folder), start
        self.folder.mkdir(parents=True, exist_ok=True)
        self.rows, self.phases = [], {}
        # Why files are not whole, each cause once.
        self.problems = {}
        self.lock = threading.Lock()

    def begin(self, earlier):
        """Clears the folder of what another run left there, and takes over the finished phases of the run in the
        folder `earlier` and the files that it kept."""
        rows, phases = read(earlier) if earlier else ([], {})
        self.phases = {name: dict(phase, end=True) for name, phase in phases.items() if phase["state"] == FINISHED}
        self.rows = [row for row in rows if row["phase"] in self.phases]
        texts = {name: self._kept_of(pathlib.Path(earlier) / name, phases) if earlier else "" for name in KEPT}
        texts[RESULTS] = "".join(f"{json.dumps(line)}\n" for line in [*self.rows, *self.phases.values()])
        head = ["# First contact with a GPU", "", *table_head("s", "phase", "what", "", "")]
        told = [table_row("before", row["phase"], row["what"], row["verdict"], row["text"]) for row in self.rows]
        texts[REPORT] = "".join(f"{line}\n" for line in head + told)
        texts[SUMMARY] = ""
        for name, text in texts.items():
            with self._noted(name):
                self._replace(name, text)
        with contextlib.suppress(OSError):
            print("\n".join(head), flush=True)

    def _kept_of(self, path, phases):
        """What a kept file of an earlier run has of finished phases."""
        owner = KEPT[path.name]
        if not path.exists() or (owner and owner not in self.phases):
            return ""
        text = path.read_text(encoding="utf-8", errors="replace")
        if owner:
            return text
        kept, keeping = [], True
        for section in re.split(r"^(?==== )", text, flags=re.MULTILINE):
            named = section.removeprefix("=== ").partition(":")[0]
            # A line of a failure's own text may look like the begin of a section.
            if named in phases or named in self.phases:
                keeping = named in self.phases
            kept.append(section if keeping else "")
        return "".join(kept)

    def _replace(self, name, text):
        """Makes a file what it is to be in one step; an empty one goes."""
        path = self.folder / name
        if not text:
            path.unlink(missing_ok=True)
            return
        unfinished = path.with_name(f"unfinished-{name}")
        try:
            unfinished.write_text(text, encoding="utf-8")
            os.replace(unfinished, path)
        finally:
            unfinished.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _noted(self, name):
        """Goes on where a file cannot be written: the rows are still told."""
        try:
            yield
        except OSError as cause:
            self.problems.setdefault(f"{name}: {cause.strerror or cause}", None)

    def say(self, *lines):
        text = "".join(f"{line}\n" for line in lines)
        with self.lock:
            with self._noted(REPORT), open(self.folder / REPORT, "a", encoding="utf-8") as report:
                report.write(text)
            # The files are worth going on for where nobody reads standard output.
            with contextlib.suppress(OSError):
                print(text, end="", flush=True)

    def row(self, phase, what, verdict, text, **data):
        """A result: what was tried, what came of it, in words, and in figures."""
        self._record({"phase": phase, "what": what, "verdict": verdict, "text": text, **data})
        self.say(table_row(f"{time.monotonic() - self.start:.1f}", phase, what, verdict, text))

    def end_phase(self, phase, state, seconds):
        self._record({"phase": phase, "state": state, "seconds": round(seconds, 1), "end": True})

    def keep(self, name, text):
        """Adds to a file of the output folder; what makes it too large stays out."""
        with self.lock, self._noted(name), open(self.folder / name, "a", encoding="utf-8", errors="replace") as file:
            file.write(text[: max(0, KEPT_BYTES - file.tell())])

    def of(self, phase):
        return [row for row in self.rows if row["phase"] == phase]

    def is_finished(self, phase):
        return self.phases.get(phase, {}).get("state") == FINISHED

    def is_settled(self, phase):
        """Whether another run here could do no more."""
        return self.phases.get(phase, {}).get("state") in (FINISHED, IMPOSSIBLE)

    def state_of(self, phase):
        """The state of a phase that was not cut off. An auxiliary row helps others, and tells nothing alone."""
        verdicts = {row["verdict"] for row in self.of(phase) if not row.get("auxiliary")}
        return IMPOSSIBLE if verdicts == {IMPOSSIBLE} else FINISHED

    def bad(self):
        return sum(row["verdict"] in BAD for row in self.rows)

    def verdict(self):
        """What there is to say of all rows."""
        not_computed = sum(row["verdict"] == NOT_COMPUTED for row in self.rows)
        words = [f"**{self.bad()} wrong**" if self.bad() else "nothing wrong"]
        if not_computed:
            words.append(f"{not_computed} rows not computed: the driver is a stand-in, whose numbers mean nothing")
        return "; ".join(words)

    def _record(self, line):
        with self.lock:
            if line.get("end"):
                self.phases[line["phase"]] = line
            else:
                self.rows.append(line)
            with self._noted(RESULTS), open(self.folder / RESULTS, "a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")

    def summary(self, title, names, ending):
        """Writes the summary: the phases, what is wrong, the times; `ending` says why nothing more comes."""
        lines = ["", f"# Summary: {title}", "", *table_head("phase", "state", "s", "results")]
        for name in names:
            end = self.phases.get(name, {"state": NOT_RUN, "seconds": ""})
            lines.append(table_row(name, end["state"], end["seconds"], counts(self.of(name))))
        wrong = [row for row in self.rows if row["verdict"] in BAD]
        if wrong:
            lines += ["", *table_head("phase", "what", "", "")]
            lines += [table_row(row["phase"], row["what"], row["verdict"], row["text"][:160]) for row in wrong[:30]]
        lines += [*headlines(self.rows), *times(self.rows), ""]
        lines += [f"- cannot be written: {problem}" for problem in self.problems]
        lines.append(ending)
        with self._noted(SUMMARY):
            (self.folder / SUMMARY).write_text("\n".join(lines) + "\n", encoding="utf-8")
        self.say(*lines)


def read(folder):
    """Rows and phases of a results file; a line that was cut off in writing counts for nothing."""
    rows, phases = [], {}
    for line in (pathlib.Path(folder) / RESULTS).read_text(encoding="utf-8").splitlines():
        try:
            found = json.loads(line)
        except ValueError:
            continue
        if found.pop("end", False):
            phases[found["phase"]] = found
        else:
            rows.append(found)
    return rows, phases


def counts(rows):
    """How many rows have each verdict."""
    verdicts = [row["verdict"] for row in rows]
    return ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in dict.fromkeys(verdicts))


def headlines(rows):
    """The largest error in parts of its bound, of each precision."""
    compared = [row for row in rows if "ratio" in row]
    lines = []
    for precision in dict.fromkeys(row["precision"] for row in compared):
        worst = max((row for row in compared if row["precision"] == precision), key=lambda row: row["ratio"])
        lines.append(f"- {precision}: error at most {worst['ratio']:.2f} of its bound, {worst['what']}")
    return ["", *lines] if lines else []


def times(rows):
    """The times of training steps, PyTorch's beside them in parts of ours."""
    peers = {}
    for row in rows:
        if "peer_ms" in row:
            peers.setdefault(row["what"].rsplit(" ", 1)[0], {})[row["mode"]] = row["peer_ms"]
    modes = list(dict.fromkeys(mode for found in peers.values() for mode in found))
    measured = [row for row in rows if "median_ms" in row]
    if not measured:
        return []
    lines = ["", *table_head("training step", "ms", "images/s", *[f"PyTorch {mode}" for mode in modes])]
    for row in measured:
        found = peers.get(row["what"], {})
        cells = [f"{found[mode]:.3f} ({found[mode] / row['median_ms']:.2f})" if mode in found else "" for mode in modes]
        lines.append(table_row(row["what"], f"{row['median_ms']:.3f}", f"{row['images_per_s']:.0f}", *cells))
    return lines
