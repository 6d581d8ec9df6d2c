"""Speed of this project's executables beside PyTorch, JAX, ONNX Runtime and OpenVINO, all in one run, in turn.

Run by `make bench` and `make bench-quick`, in an environment that scripts/bench makes; README.md says how to read it.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import time

import report

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent

TORCH = ["eager", "channels_last", "compile", "compile channels_last"]
PEERS = {"train": [*TORCH, "jax"], "infer": [*TORCH, "jax", "onnxruntime", "openvino"]}
OURS = "syncbn-compile"
# As many ranks as threads, instead of one rank with so many.
RANKS = f"{OURS} ranks"

# The first three keep glibc from giving memory back after each step: 5 to 20% of PyTorch's training. The last one makes
# the first step of torch.compile one from nothing.
ENVIRONMENT = {
    "MALLOC_MMAP_THRESHOLD_": "8589934592", "MALLOC_TRIM_THRESHOLD_": "8589934592", "MALLOC_TOP_PAD_": "268435456",
    "TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1",
}

SIZES = {
    "full": [
        ("syncbnnet", 8, 32), ("syncbnnet", 32, 32), ("syncbnnet", 8, 64), ("syncbnnet", 32, 64), ("resnet50", 8, 224),
        ("mobilenet_v2", 8, 224), ("efficientnet_b0", 8, 224), ("densenet121", 8, 224), ("unet", 8, 128),
    ],
    "quick": [("syncbnnet", 32, 32)],
}


@dataclasses.dataclass
class Result:
    """What one side did with one workload. `reason` says why there are no times."""

    network: str
    batch: int
    pixels: int
    mode: str
    threads: int
    side: str
    times: list = dataclasses.field(default_factory=list)
    first_s: float | None = None
    peak_bytes: int | None = None
    reason: str = ""

    @property
    def median(self):
        return statistics.median(self.times) if self.times else None


def processors(threads):
    """The processors that a side may use: the last of ours, where system work is rarest."""
    return set(sorted(os.sched_getaffinity(0))[-threads:])


class Peer:
    """A process of a framework."""

    def __init__(self, result, path):
        self.result = result
        threads = result.threads
        side = result.side.replace(" ", "_")
        self.log = open(path.with_suffix(f".{result.mode}.{threads}.{side}.log"), "w")
        self.process = subprocess.Popen(
            [sys.executable, HERE / "worker.py", result.side, result.network, result.mode, str(threads),
             str(result.batch), str(result.pixels), path],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True,
            env={**os.environ, **ENVIRONMENT, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)},
            preexec_fn=lambda: os.sched_setaffinity(0, processors(threads)),
        )
        ready = self.receive()
        if ready:
            result.first_s = ready["first_s"]

    def receive(self):
        line = self.process.stdout.readline()
        if line:
            return json.loads(line)
        code = self.process.wait()
        self.result.reason = f"ended with {code}: {self.last_words()}"
        return None

    def last_words(self):
        self.log.flush()
        lines = [line.strip() for line in open(self.log.name, errors="replace") if line.strip()]
        errors = [line for line in lines if re.match(r"[\w.]*(Error|Exception)\b", line)]
        return (errors or lines or ["no message"])[-1][:160]

    def measure(self, seconds, least):
        if self.result.reason:
            return
        try:
            self.process.stdin.write(f"{seconds} {least}\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # Its end says why.
        self.result.times += self.receive() or []

    def end(self):
        if not self.result.reason:
            self.process.stdin.close()
            last = self.receive()
            self.result.peak_bytes = last["peak_bytes"] if last else None
            self.process.wait()
        self.log.close()


class Executable:
    """An executable of this project: one process each time, since it starts in milliseconds. Threads are those of one rank,
    or ranks that share the batch."""

    def __init__(self, result, binary):
        self.result, self.binary, self.step_s = result, binary, None
        self.ranks = result.threads if result.side == RANKS else 1
        self.result.first_s = binary.seconds
        self.result.reason = binary.reason

    def measure(self, seconds, least):
        if self.result.reason:
            return
        threads, batch, ranks = self.result.threads, self.result.batch, self.ranks
        steps = least if self.step_s is None else max(least, round(seconds / self.step_s))
        run = subprocess.run(
            [self.binary.path, "bench", "--json", "--mode", self.result.mode, "--ranks", str(ranks), "--threads-per-rank",
             str(threads // ranks), "--batch", str(batch // ranks), "--steps", str(steps), "--warmup", "2"],
            capture_output=True, text=True, preexec_fn=lambda: os.sched_setaffinity(0, processors(threads)),
        )
        if run.returncode:
            self.result.reason = (run.stderr.strip().splitlines() or [f"exit code {run.returncode}"])[0]
            return
        figures = json.loads(run.stdout)
        self.step_s = figures["median_ms"] / 1e3
        # A median of each round; it stands for as many steps as were made.
        self.result.times += [figures["median_ms"]] * steps
        self.result.peak_bytes = max(self.result.peak_bytes or 0, figures["peak_rss_bytes"])

    def end(self):
        pass


class Binary:
    """A compiled network and how long the compilation took."""

    def __init__(self, compiler, model, batch, mode, flags):
        self.path = model.with_suffix(f".{mode}.bin")
        command = [compiler, model, "-o", self.path, "--target", "cpu", "--mode", mode, "--batch", str(batch), *flags]
        start = time.perf_counter()
        run = subprocess.run(command, capture_output=True, text=True)
        self.seconds = time.perf_counter() - start
        errors = [line for line in run.stderr.splitlines() if line.strip()]
        self.reason = "" if run.returncode == 0 else (errors or [f"exit code {run.returncode}"])[0][:160]


def workload(options, model, binary, mode, threads, size):
    """All sides in turn, round by round."""
    network, batch, pixels = size
    own = [OURS] if threads == 1 else [OURS, RANKS]
    own, peers = (
        [Result(network, batch, pixels, mode, threads, side) for side in sides] for sides in (own, options.peers[mode])
    )
    results = [*own, *peers]
    sides = [*(Executable(result, binary) for result in own), *(Peer(result, model) for result in peers)]
    for round_index in range(options.rounds):
        # Every other round backwards: whoever comes after a hot neighbour changes.
        for side in sides[:: 1 if round_index % 2 == 0 else -1]:
            side.measure(options.seconds, options.least)
    for side in sides:
        side.end()
    for result in results:
        median = f"{result.median:.2f} ms" if result.times else f"- ({result.reason})"
        print(f"  {result.side:24} {median}", flush=True)
    return results


def raise_priority():
    """Puts this run before other work of the machine, where that is allowed."""
    try:
        # The processes of a session are a group; scripts/bench starts a session.
        pathlib.Path("/proc/self/autogroup").write_text("-20")
        os.nice(-20)
    except OSError as error:
        print(f"the priority stays as it is: {error}", file=sys.stderr)


def machine():
    text = pathlib.Path("/proc/cpuinfo").read_text()
    name = re.search(r"model name\s*: (.*)", text)
    return {
        "processor": name.group(1) if name else "unknown",
        "features": next((f for f in ("avx512f", "avx2", "sse2") if f" {f} " in text), ""),
        "cores": len(os.sched_getaffinity(0)),
        "date": time.strftime("%Y-%m-%d"),
        "load": os.getloadavg()[0],
        "versions": {name: version(name) for name in ("torch", "jax", "onnxruntime", "openvino")},
    }


def version(package):
    import importlib.metadata

    return importlib.metadata.version(package)


def parse():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=SIZES, default="full", help="what is measured")
    parser.add_argument("--networks", help="only these, comma-separated")
    parser.add_argument("--sizes", help="instead: NETWORK:BATCH:PIXELS, comma-separated")
    parser.add_argument("--modes", default="train,infer")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--peers", help="only these peers, comma-separated")
    parser.add_argument("--rounds", type=int, help="turns of each side")
    parser.add_argument("--seconds", type=float, help="of a turn")
    parser.add_argument("--least", type=int, default=3, help="steps of a turn at least")
    parser.add_argument("--compiler", default=ROOT / "target/release/syncbn-compile", type=pathlib.Path)
    parser.add_argument("--flags", default="", help="more flags for the compiler")
    parser.add_argument("--output", default=ROOT / "target/bench", type=pathlib.Path)
    parser.add_argument("--more", action="store_true", help="keep the results of earlier runs in the same folder")
    parser.add_argument("--write", action="store_true", help="put the table and the plot into docs/")
    options = parser.parse_args()
    quick = options.size == "quick"
    options.rounds = options.rounds or (3 if quick else 5)
    options.seconds = options.seconds or (0.7 if quick else 2.0)
    chosen = options.peers.split(",") if options.peers is not None else None
    options.peers = {
        mode: [p for p in peers if (chosen is None and not (quick and p == "compile")) or (chosen and p in chosen)]
        for mode, peers in PEERS.items()
    }
    if options.sizes:
        parts = [text.split(":") for text in options.sizes.split(",")]
        options.sizes = [(network, int(batch), int(pixels)) for network, batch, pixels in parts]
    else:
        options.sizes = SIZES[options.size]
    if options.networks:
        options.sizes = [size for size in options.sizes if size[0] in options.networks.split(",")]
    return options


def kept(options, earlier):
    """Results of earlier runs, but for what is measured anew."""
    modes, threads = options.modes.split(","), [int(t) for t in options.threads.split(",")]
    results = [Result(**fields) for fields in earlier]
    anew = lambda r: (r.network, r.batch, r.pixels) in options.sizes and r.mode in modes and r.threads in threads
    return [r for r in results if not anew(r)]


def main():
    options = parse()
    raise_priority()
    import networks

    options.output.mkdir(parents=True, exist_ok=True)
    about, record = machine(), options.output / "results.json"
    results = kept(options, json.loads(record.read_text())["results"]) if options.more and record.exists() else []
    for size in options.sizes:
        network, batch, pixels = size
        model = options.output / f"{network}_{batch}_{pixels}.onnx"
        if not model.exists():
            networks.export(network, batch, pixels, model)
        for mode in options.modes.split(","):
            binary = Binary(options.compiler, model, batch, mode, options.flags.split())
            for threads in (int(t) for t in options.threads.split(",")):
                print(f"{network}, batch {batch}, {pixels} px, {mode}, {threads} thread(s)", flush=True)
                results += workload(options, model, binary, mode, threads, size)
                both = {"machine": about, "results": [dataclasses.asdict(r) for r in results]}
                record.write_text(json.dumps(both))
    text = report.table(about, results, OURS)
    print(text)
    plot = options.output / "bench.svg"
    report.plot(results, OURS, plot)
    if options.write:
        report.write(ROOT / "docs", text, plot)


if __name__ == "__main__":
    main()
