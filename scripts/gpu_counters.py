"""Hardware counters of every kernel of one training step, by NVIDIA's ncu."""

import csv
import io
import shutil
import time

from gpu_phase import Impossible
from gpu_results import FOUND, NOT_COMPUTED
from gpu_run import Failure, Timeout
from gpu_timing import bench_command
from gpu_tools import unable

# What is profiled, the smaller one first, as ncu writes nothing before its end.
STEPS = (("syncbnnet", 32, "bf16"), ("resnet50", 128, "bf16"))
DURATION = "gpu__time_duration.sum"
BYTES = "dram__bytes.sum"
PLAIN = (DURATION, BYTES)
# Where a GPU lacks one of these, only the plain ones are asked for.
METRICS = (
    *PLAIN,
    "sm__inst_executed_pipe_tensor.sum",
    "smsp__inst_executed.sum",
    "l1tex__data_bank_conflicts_pipe_lsu_mem_shared.sum",
    "sm__warps_active.avg.pct_of_peak_sustained_active",
)
# Other clocks and a cold cache would be another step than the one that is timed.
FLAGS = (
    *("--clock-control", "none"),
    *("--cache-control", "none"),
    *("--target-processes", "all"),
    *("--page", "raw"),
    *("--print-units", "base"),
    "--csv",
)
# Seconds for ncu to write what it has once it is interrupted.
GRACE = 10
# A kernel of a larger network takes ncu longer, for the memory that it saves between passes.
SLOWER = 2
# The part of a network's time that the plain metrics of a whole step may take, where all metrics are for later.
PLAIN_PART = 0.5
# What a unit of a column is in seconds or bytes.
UNITS = {
    "ns": 1e-9, "nsecond": 1e-9, "us": 1e-6, "usecond": 1e-6, "ms": 1e-3, "msecond": 1e-3, "s": 1, "second": 1,
    "byte": 1, "Kbyte": 1e3, "Mbyte": 1e6, "Gbyte": 1e9,
}  # fmt: skip


def counters(phase):
    """One step without graphs of each network, all its kernels; of a later network the plain metrics of all, then all
    metrics of as many as there is time for."""
    session = phase.session
    if session.device != "cuda":
        raise Impossible("no GPU")
    if shutil.which("ncu") is None:
        raise Impossible("ncu is not in the path")
    chosen = [row for step in STEPS for row in session.timed() if row[:3] == step] or session.timed()[:1]
    if not chosen:
        raise Impossible("no network to time is packed")
    pace = Pace()
    for index, (name, batch, precision, path) in enumerate(chosen):
        what = f"{name} {precision} b{batch}"
        # One that hangs leaves the next its part of the time.
        end = time.monotonic() + (phase.left() - GRACE) / (len(chosen) - index)
        bench = bench_command(path, "cuda", batch, warm_up=0, steps=1, graphs="off")
        file = f"counters-{index + 1}.csv"
        if pace.known():
            plain_end = time.monotonic() + PLAIN_PART * (end - time.monotonic())
            phase.attempt(f"{what}, plain", one_step, phase, PLAIN, bench, file, plain_end, None)
        phase.attempt(what, one_step, phase, METRICS, bench, file, end, pace)


class Pace:
    """How long ncu takes to start, with the context, and for one kernel with all metrics."""

    def __init__(self):
        self.start = self.kernel = None

    def known(self):
        return self.kernel is not None

    def launches(self, seconds):
        """How many there is time for."""
        return max(1, int((seconds - self.start) / (SLOWER * self.kernel)))


def one_step(phase, metrics, bench, file, end, pace):
    """Profiles a step, or as much of it as there is time for by the `pace` of the one before."""
    count = None
    if pace and pace.known():
        count = pace.launches(end - time.monotonic())
    elif pace:
        began = time.monotonic()
        profiled(phase, PLAIN, bench, end, count=1)
        pace.start = time.monotonic() - began
    began = time.monotonic()
    try:
        table = profiled(phase, metrics, bench, end, count)
    except Timeout as failure:
        # An interrupted ncu writes the kernels that it has.
        phase.keep(file, table_of(failure.text))
        raise
    except Failure as failure:
        if metrics == PLAIN or "metric" not in failure.text:
            raise
        table, pace = profiled(phase, PLAIN, bench, end), None
        count = None
    phase.keep(file, table)
    text, figures = totals(table, count)
    if pace:
        pace.kernel = max(1e-4, time.monotonic() - began - pace.start) / figures["kernels"]
    return (NOT_COMPUTED if phase.session.computes_nothing(phase) else FOUND), text, figures


def profiled(phase, metrics, bench, end, count=None):
    """The table that ncu writes of all launches, or of the first `count`."""
    counted = ["--launch-count", count] if count else []
    words = ["ncu", *FLAGS, *counted, "--metrics", ",".join(metrics), *bench]
    try:
        text = phase.run(words, max(1, end - time.monotonic()), grace=GRACE, complaints=True)
    except Timeout:
        raise
    except Failure as failure:
        why = unable(failure.text)
        if why:
            raise Impossible(why) from None
        raise
    table = table_of(text)
    if not table:
        why = unable(text)
        if why:
            raise Impossible(why)
        raise Failure("ncu wrote no table", text)
    return table


def table_of(text):
    """The lines of the table among what ncu and the executable wrote."""
    lines = [line for line in text.splitlines() if line.startswith('"')]
    return "\n".join(lines) + "\n" if lines else ""


def totals(table, count=None):
    """The sums over all kernels, in words and figures; those of part of a step where there are `count` of them."""
    rows = list(csv.DictReader(io.StringIO(table)))
    if not rows or DURATION not in rows[0]:
        raise Failure(f"ncu's table has no {DURATION}", table)
    # The line below the titles has the units.
    units, kernels = rows[0], rows[1:]
    if not kernels:
        raise Failure("ncu saw no kernel", table)
    total = lambda name: sum(number(row[name]) for row in kernels) * UNITS.get(units[name], 1)
    seconds, moved = total(DURATION), total(BYTES)
    figures = {"kernels": len(kernels), "kernel_ms": seconds * 1e3, "gigabytes": moved / 1e9}
    what = f"{len(kernels)} kernels"
    if len(kernels) == count:
        what, figures["cut"] = f"first {count} launches only", True
    return f"{what}, {seconds * 1e3:.3f} ms, {moved / 1e9:.3f} GB", figures


def number(cell):
    """A number with commas between thousands; 0 where ncu has none."""
    try:
        return float(cell.replace(",", ""))
    except ValueError:
        return 0.0
