"""Curves of the benchmarks as PNG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Curve:
    """A line of a plot."""

    label: str
    xs: Sequence[float]
    ys: Sequence[float]


def draw(path: Path, curves: Sequence[Curve], *, title: str, x: str, y: str, log_x: bool = False) -> None:
    """Draw the curves over each other; the y axis begins at 0, so that a flat curve looks flat."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for curve in curves:
        axes.plot(curve.xs, curve.ys, marker="o", markersize=3, label=curve.label)
    axes.set(title=title, xlabel=x, ylabel=y)
    axes.set_ylim(bottom=0)
    if log_x:
        axes.set_xscale("log")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=110)
    plt.close(figure)
