"""What gpu-first found: rows that are written as they come, and a summary of them."""

import contextlib
import json
import pathlib
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

# States of a phase. Only a finished one is not run again by --resume.
FINISHED = "finished"
CUT = "cut off"

RESULTS = "results.jsonl"
REPORT = "report.md"
SUMMARY = "summary.md"
FAILURES = "failures.txt"
# With the three above and FAILURES these are all the files there may be: at most eight leave some machines.
KEPT = ("facts.txt", FAILURES, "nccl.txt", "counters-1.csv", "counters-2.csv")
KEPT_BYTES = 4 << 20


class Results:
    """The output folder. Every row goes there and to standard output at once."""

    def __init__(self, folder, start):
        self.folder, self.start = pathlib.Path(folder), start
        self.folder.mkdir(parents=True, exist_ok=True)
        self.rows, self.phases = [], {}
        self.lock = threading.Lock()

    def begin(self, earlier):
        """Clears the folder of what another run left there, and takes over the finished phases of the run in the
        folder `earlier` and the files that it kept."""
        rows, phases = read(earlier) if earlier else ([], {})
        again = earlier is not None and pathlib.Path(earlier).resolve() == self.folder.resolve()
        for name in (RESULTS, REPORT, SUMMARY, *(() if again else KEPT)):
            (self.folder / name).unlink(missing_ok=True)
        for line in rows + [dict(phase, end=True) for phase in phases.values()]:
            if phases.get(line["phase"], {}).get("state") == FINISHED:
                self._record(line)
        for name in KEPT if earlier and not again else ():
            kept = pathlib.Path(earlier) / name
            if kept.exists():
                (self.folder / name).write_bytes(kept.read_bytes())
        self.say("# First contact with a GPU", "", *table_head("s", "phase", "what", "", ""))

    def say(self, *lines):
        text = "".join(f"{line}\n" for line in lines)
        with self.lock, open(self.folder / REPORT, "a") as report:
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
        with self.lock, open(self.folder / name, "a") as file:
            file.write(text[: max(0, KEPT_BYTES - file.tell())])

    def of(self, phase):
        return [row for row in self.rows if row["phase"] == phase]

    def is_finished(self, phase):
        return self.phases.get(phase, {}).get("state") == FINISHED

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
            with open(self.folder / RESULTS, "a") as file:
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
        lines += [*headlines(self.rows), *times(self.rows), "", ending]
        (self.folder / SUMMARY).write_text("\n".join(lines) + "\n")
        self.say(*lines)


def read(folder):
    """Rows and phases of a results file; a line that was cut off in writing counts for nothing."""
    rows, phases = [], {}
    for line in (pathlib.Path(folder) / RESULTS).read_text().splitlines():
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
