"""Plot of page throughput by number of connections and by data size."""

from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from bench.report import Findings, spread
from bench.scenarios import SERVERS, SIZES, Entry, SizeName

mpl.use("Agg")


def draw(findings: Findings, path: Path) -> None:
    """Write the plot to `path`. Lines are medians; bars span minimum and maximum."""
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    by_connections, by_size = figure.subplots(1, 2)
    pages = [entry for entry in findings.entries.values() if entry.load == "page"]
    largest: SizeName = "L" if any(entry.size == "L" for entry in pages) else "S"
    for contestant, title in SERVERS.items():
        mine = [entry for entry in pages if entry.contestant == contestant]
        _line(
            by_connections, findings, title,
            [(entry.connections, entry) for entry in mine if entry.size == largest],
        )  # fmt: skip
        _line(
            by_size, findings, title,
            [(SIZES[entry.size].posts, entry) for entry in mine if entry.connections == 64],
        )  # fmt: skip
    by_connections.set(xlabel="connections", title=f"A page of ten posts, {SIZES[largest].posts:,} posts")
    by_connections.set_xscale("log", base=2)
    by_connections.set_xticks([1, 4, 16, 64, 128], labels=["1", "4", "16", "64", "128"])
    by_size.set(xlabel="posts", xscale="log", title="A page of ten posts, 64 connections")
    for axes in (by_connections, by_size):
        axes.set(ylabel="requests per second", yscale="log")
        axes.grid(visible=True, which="major", alpha=0.3)
    if by_connections.get_legend_handles_labels()[0]:
        by_connections.legend(fontsize="small")
    figure.savefig(path, dpi=110)


def _line(axes: mpl.axes.Axes, findings: Findings, title: str, entries: list[tuple[int, Entry]]) -> None:
    points = [
        (x, measured) for x, entry in sorted(entries, key=lambda pair: pair[0])
        if (measured := spread(findings.values(entry, "rate")))
    ]  # fmt: skip
    if points:
        axes.errorbar(
            [x for x, _ in points],
            [measured.median for _, measured in points],
            yerr=[
                [measured.median - measured.least for _, measured in points],
                [measured.most - measured.median for _, measured in points],
            ],
            label=title,
            marker="o",
            capsize=3,
        )
