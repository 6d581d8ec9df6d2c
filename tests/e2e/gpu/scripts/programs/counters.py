"""The counters phase with an ncu that takes two seconds to start and one for a kernel, by a clock of its own."""

import pathlib
import types

import gpu_counters
from gpu_results import FOUND

KERNELS = {"small": 4, "large": 100}
clock = types.SimpleNamespace(now=0.0)
gpu_counters.time = types.SimpleNamespace(monotonic=lambda: clock.now)
gpu_counters.shutil = types.SimpleNamespace(which=lambda name: name)
gpu_counters.STEPS = (("small", 32, "bf16"), ("large", 32, "bf16"))
rows, called = {}, []


def run(words, limit, grace, complaints):
    words = list(map(str, words))
    metrics = words[words.index("--metrics") + 1].split(",")
    kernels = KERNELS[next(name for name in KERNELS if f"/{name}" in words)]
    if "--launch-count" in words:
        kernels = min(kernels, int(words[words.index("--launch-count") + 1]))
    clock.now += 2 + kernels * (1 if len(metrics) > 2 else 0.1)
    called.append((kernels, len(metrics)))
    lines = [metrics, ["us", "Mbyte", *["inst"] * (len(metrics) - 2)], *[["1"] * len(metrics)] * kernels]
    return "".join(",".join(f'"{cell}"' for cell in line) + "\n" for line in lines)


def attempt(what, function, *arguments):
    rows[what] = function(*arguments)


session = types.SimpleNamespace(
    device="cuda",
    timed=lambda: [(name, 32, "bf16", pathlib.Path("/" + name)) for name in KERNELS],
    computes_nothing=lambda phase: False,
)
phase = types.SimpleNamespace(
    session=session, run=run, attempt=attempt, keep=lambda *words: None, left=lambda: 110 - clock.now
)
gpu_counters.counters(phase)
# The start of ncu is no part of the pace: a second for a kernel, taken twice for the larger network.
assert called[:3] == [(1, 2), (4, 6), (100, 2)], called
verdict, text, figures = rows["large bf16 b32, plain"]
assert verdict == FOUND and text.startswith("100 kernels") and "cut" not in figures, text
verdict, text, figures = rows["large bf16 b32"]
count = called[3][0]
assert 35 <= count <= 45 and text.startswith(f"first {count} launches only") and figures["cut"], (text, called)
assert "cut" not in rows["small bf16 b32"][2]
