"""The statement as a figure: epsilon after each step, what is planned, and the ceiling."""

from __future__ import annotations

import io
from pathlib import Path

from client.budget.statement import Statement
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
        figure, axes = plt.subplots(figsize=(max(5.0, 1.2 * len(lines) + 2), 3.6), layout="constrained")
        for place, line in enumerate(lines):
            color = SPENT if place < len(statement.lines) else PLANNED
            axes.bar(place, line.after, color=color, width=0.6)
            axes.text(place, line.after, f"{line.after:.2f}", ha="center", va="bottom", fontsize=8)
        if statement.ceiling is not None:
            axes.axhline(statement.ceiling, color=CEILING, linestyle="--", linewidth=1)
            axes.text(-0.5, statement.ceiling, f"ceiling {statement.ceiling:g}", color=CEILING, va="bottom", fontsize=8)
        axes.set_xticks(range(len(lines)), [_label(line.step, line.run) for line in lines], fontsize=8)
        axes.set_xlim(-0.6, max(len(lines), 1) - 0.4)
        axes.set_ylim(0, 1.15 * max([line.after for line in lines] + [statement.ceiling or 1.0]))
        axes.set_ylabel(f"epsilon so far, delta {statement.delta:.3g}")
        axes.set_title(title, fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
        drawn = io.BytesIO()
        figure.savefig(drawn, format=kind, dpi=150, metadata={"Date": None} if kind == "svg" else {"Software": None})
        plt.close(figure)
    write_bytes(path, drawn.getvalue())


def _label(step: str, run: str) -> str:
    return f"{step}\n({run[:8]})"
