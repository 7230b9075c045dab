"""The statement as a figure: epsilon after each step, what is planned, and the ceiling."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from client.budget.statement import Line, Statement
from common.errors import ConfigError
from common.files import write_bytes

FORMATS = ("png", "svg")
SPENT, PLANNED, CEILING = "#0072B2", "#E69F00", "#D55E00"  # Okabe-Ito


def draw(statement: Statement, path: Path, *, title: str) -> None:
    """Write the figure. Raises ConfigError for a name that ends neither in .svg nor in .png."""
    kind = path.suffix.removeprefix(".").lower()
    if kind not in FORMATS:
        raise ConfigError(f"{path} is no figure that this can draw; let its name end in .png or .svg.")
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    lines = [*statement.lines, *statement.planned]
    with matplotlib.rc_context({"svg.hashsalt": "fedgraft", "svg.fonttype": "none"}):
        figure, axes = plt.subplots(figsize=(7.2, 1.9 + 0.42 * max(len(lines), 2)), layout="constrained")
        _bars(axes, statement)
        if statement.ceiling is not None:
            axes.axvline(statement.ceiling, color=CEILING, linestyle="--", linewidth=1.2)
            axes.text(
                statement.ceiling, 1.01, f"ceiling {statement.ceiling:g}", color=CEILING, fontsize=8, ha="center",
                va="bottom", transform=axes.get_xaxis_transform(),
            )  # fmt: skip
        axes.set_yticks(range(len(lines)), [_label(line) for line in lines], fontsize=8)
        axes.set_ylim(max(len(lines), 1) - 0.4, -0.6)  # the first step on top
        axes.set_xlim(0, 1.12 * max([line.after for line in lines] + [statement.ceiling or 1.0]))
        axes.set_xlabel(f"epsilon of everything so far, at delta {statement.delta:.3g}", fontsize=8)
        figure.suptitle(title, fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
        drawn = io.BytesIO()
        figure.savefig(drawn, format=kind, dpi=150, metadata={"Date": None} if kind == "svg" else {"Software": None})
        plt.close(figure)
    write_bytes(path, drawn.getvalue())


def _bars(axes: Any, statement: Statement) -> None:
    """A bar for each step as the account stands after it; what the ceiling refuses is hatched."""
    from matplotlib.patches import Patch

    shown = [(line, SPENT) for line in statement.lines] + [(line, PLANNED) for line in statement.planned]
    for place, (line, color) in enumerate(shown):
        hatch = "///" if line.refused_from else ""
        axes.barh(place, line.after, color=color, height=0.6, hatch=hatch, edgecolor="white", linewidth=0)
        axes.text(line.after, place, f" {line.after:.2f}", ha="left", va="center", fontsize=8)
    kinds = {"spent": Patch(color=SPENT)} if statement.lines else {}
    kinds |= {"planned": Patch(color=PLANNED)} if statement.planned else {}
    if any(line.refused_from for line in statement.planned):
        kinds["planned, and refused"] = Patch(facecolor=PLANNED, hatch="///", edgecolor="white", linewidth=0)
    if kinds:
        axes.figure.legend(
            list(kinds.values()), list(kinds), loc="outside lower center", ncols=3, fontsize=8, frameon=False
        )


def _label(line: Line) -> str:
    """The step, and under it the run, or from which round on it would be refused."""
    refused = f", refused from round {line.refused_from}" if line.refused_from else ""
    return f"{line.step}\n({line.run[:8]}{refused})"
