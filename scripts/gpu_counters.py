"""Hardware counters of every kernel of one training step, by NVIDIA's ncu."""

import csv
import io
import shutil
import time

from gpu_phase import Impossible
from gpu_results import FOUND, NOT_COMPUTED
from gpu_run import Failure, Timeout
from gpu_timing import bench_command

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
# What a unit of a column is in seconds or bytes.
UNITS = {
    "ns": 1e-9, "nsecond": 1e-9, "us": 1e-6, "usecond": 1e-6, "ms": 1e-3, "msecond": 1e-3, "s": 1, "second": 1,
    "byte": 1, "Kbyte": 1e3, "Mbyte": 1e6, "Gbyte": 1e9,
}  # fmt: skip


def counters(phase):
    """One step without graphs of each network, all its kernels."""
    session = phase.session
    if session.device != "cuda":
        raise Impossible("no GPU")
    if shutil.which("ncu") is None:
        raise Impossible("ncu is not in the path")
    chosen = [row for step in STEPS for row in session.timed() if row[:3] == step] or session.timed()[:1]
    if not chosen:
        raise Impossible("no network to time is packed")
    pace = {}
    for index, (name, batch, precision, path) in enumerate(chosen):
        what = f"{name} {precision} b{batch}"
        # One that hangs leaves the next its part of the time.
        limit = (phase.left() - GRACE) / (len(chosen) - index)
        phase.attempt(what, one_step, phase, path, batch, f"counters-{index + 1}.csv", limit, pace)


def one_step(phase, path, batch, file, limit, pace):
    """Profiles a step, or as much of it as there is time for by the `pace` of the one before."""
    bench = bench_command(path, "cuda", batch, warm_up=0, steps=1, graphs="off")
    count = []
    if pace:
        count = ["--launch-count", max(1, int(limit / (SLOWER * pace["seconds"])))]
    start = time.monotonic()
    try:
        table = profiled(phase, [*count, "--metrics", ",".join(METRICS), *bench], limit)
    except Timeout as failure:
        # An interrupted ncu writes the kernels that it has.
        phase.keep(file, table_of(failure.text))
        raise
    except Failure as failure:
        if "metric" not in failure.text:
            raise
        table = profiled(phase, [*count, "--metrics", ",".join(PLAIN), *bench], limit)
    phase.keep(file, table)
    text, figures = totals(table)
    pace["seconds"] = (time.monotonic() - start) / figures["kernels"]
    return (NOT_COMPUTED if phase.session.computes_nothing(phase) else FOUND), text, figures


def profiled(phase, words, limit):
    """The table that ncu writes."""
    try:
        text = phase.run(["ncu", *FLAGS, *words], limit, grace=GRACE)
    except Failure as failure:
        if "ERR_NVGPUCTRPERM" in failure.text:
            raise Impossible("this user may not read the GPU's counters") from None
        raise
    table = table_of(text)
    if not table:
        raise Failure("ncu wrote no table", text)
    return table


def table_of(text):
    """The lines of the table among what ncu and the executable wrote."""
    lines = [line for line in text.splitlines() if line.startswith('"')]
    return "\n".join(lines) + "\n" if lines else ""


def totals(table):
    """The sums over all kernels, in words and figures."""
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
    return f"{len(kernels)} kernels, {seconds * 1e3:.3f} ms, {moved / 1e9:.3f} GB", figures


def number(cell):
    """A number with commas between thousands; 0 where ncu has none."""
    try:
        return float(cell.replace(",", ""))
    except ValueError:
        return 0.0
