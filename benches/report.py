"""Results as a table and a plot."""

import statistics

BEGIN, END = "<!-- bench: begin -->", "<!-- bench: end -->"


def workloads(results):
    """Results by network, batch, pixels, mode, threads, in order."""
    groups = {}
    for r in results:
        groups.setdefault((r.network, r.batch, r.pixels, r.mode, r.threads), {})[r.side] = r
    return groups


def split(sides, ours):
    """Results of this project, whose sides begin with `ours`, and of peers."""
    own = [r for side, r in sides.items() if side.startswith(ours)]
    return own, [r for r in sides.values() if r not in own]


def least(results):
    """The result with the least median; the first one if there are no times."""
    timed = [r for r in results if r.times]
    return min(timed, key=lambda r: r.median, default=results[0] if results else None)


def ratio(sides, ours):
    """How many times as fast as the fastest peer, each in its best form."""
    own, best = (least(results) for results in split(sides, ours))
    return best.median / own.median if best and best.times and own.times else None


def table(about, results, ours):
    """Markdown."""
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    lines = [
        f"{about['cores']} cores of {about['processor']} ({about['features']}), load {about['load']:.1f} before the run, "
        f"{about['date']}; {versions}. Median milliseconds of a step; \"first\" is the compilation here, and the first step "
        "from nothing there; memory is the peak resident one, beside PyTorch's (the least of its forms).",
        "",
        "| network, batch, pixels | mode | threads | this project | fastest peer | ratio | other peers | memory, MiB | first, s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for (network, batch, pixels, mode, threads), sides in workloads(results).items():
        all_own, peers = split(sides, ours)
        own, best, times = least(all_own), least(peers), ratio(sides, ours)
        best = best if best and best.times else None
        forms = "; ".join(form(r, ours) for r in sorted(all_own, key=lambda r: r is not own))
        others = ", ".join(
            f"{r.side} {milliseconds(r)}" for r in sorted(peers, key=lambda r: r.median or 1e9) if r is not best
        )
        torch = [r for r in peers if r.peak_bytes and r.side not in ("jax", "onnxruntime", "openvino")]
        memory = f"{mebibytes(own)} / {mebibytes(min(torch, key=lambda r: r.peak_bytes, default=None))}"
        first = f"{seconds(own)} / {seconds(best)}"
        lines.append(
            f"| {network}, {batch}, {pixels} | {mode} | {threads} | {forms} | "
            f"{best.side + ' ' + milliseconds(best) if best else '-'} | {f'{times:.2f}' if times else '-'} | {others} | "
            f"{memory} | {first} |"
        )
    ratios = [r for r in (ratio(sides, ours) for sides in workloads(results).values()) if r]
    if ratios:
        lines += ["", f"Geometric mean of the ratios: {statistics.geometric_mean(ratios):.2f}."]
    failures = sorted({f"- {r.network}, {r.mode}, {r.side}: {r.reason}" for r in results if r.reason})
    if failures:
        lines += ["", "Without figures:", "", *failures]
    return "\n".join(lines) + "\n"


def form(result, ours):
    """The median of one of this project's forms: a rank with several threads, or several ranks."""
    ranks = result.side.removeprefix(ours).strip()
    name = ranks or ("threads" if result.threads > 1 else "")
    return f"{name} {milliseconds(result)}".strip()


def milliseconds(result):
    return f"{result.median:.2f}" if result and result.times else "-"


def mebibytes(result):
    return f"{result.peak_bytes / 2**20:.0f}" if result and result.peak_bytes else "-"


def seconds(result):
    return f"{result.first_s:.1f}" if result and result.first_s is not None else "-"


def plot(results, ours, path):
    """A bar for each workload: the ratio to the fastest peer."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "bench"
    from matplotlib import pyplot

    rows = [(key, ratio(sides, ours)) for key, sides in workloads(results).items()]
    rows = [(key, value) for key, value in rows if value]
    if not rows:
        return
    labels = [f"{n} {b}/{p} {m}, {t} thread{'s' if t > 1 else ''}" for (n, b, p, m, t), _ in rows]
    figure, axes = pyplot.subplots(figsize=(8, 0.9 + 0.27 * len(rows)), layout="constrained")
    values = [value for _, value in rows]
    colours = ["#2f6fab" if key[3] == "train" else "#8ab17d" for key, _ in rows]
    bars = axes.barh(labels, values, color=colours)
    axes.bar_label(bars, fmt="%.2f", padding=3, fontsize=8)
    axes.axvline(1.0, color="black", linewidth=0.8)
    axes.invert_yaxis()
    axes.set_xlim(0, max([1.1, *values]) * 1.1)
    axes.set_xlabel("times as fast as the fastest peer in the same run (blue: training, green: inference)")
    axes.tick_params(labelsize=8)
    figure.savefig(path, metadata={"Date": None})


def write(docs, text, plot_path):
    """Puts both into docs/measurements.md, between its two marks."""
    page = docs / "measurements.md"
    old = page.read_text()
    if BEGIN not in old or END not in old:
        raise SystemExit(f"{page} lacks the lines {BEGIN} and {END}, between which the table goes")
    (docs / "bench.svg").write_bytes(plot_path.read_bytes())
    before, rest = old.split(BEGIN, 1)
    after = rest.split(END, 1)[1]
    picture = "![Ratios to the fastest peer](bench.svg)"
    page.write_text(f"{before}{BEGIN}\n{text}\n{picture}\n{END}{after}")
