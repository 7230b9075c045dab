"""The study's figure: every arm's interval, and the ceiling of the true hazard."""

from __future__ import annotations

from common.metrics import Estimate, Resampled
from simulations.comparison.names import CENTRALIZED, FEDERATED, LOCAL, RANDOM, label_of
from simulations.studies.page import Picture

PIXELS = 120


def picture_of(found: dict[tuple[str, str, str], Resampled], ceiling: dict[str, Resampled]) -> Picture:
    """Every input and loss in a row, an interval for each arm, lines for the ceiling."""
    import io

    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = list(dict.fromkeys((name, loss) for name, loss, arm in found if arm == FEDERATED))
    colors = {FEDERATED: "#0072B2", CENTRALIZED: "#D55E00", LOCAL: "#009E73", RANDOM: "#777777"}
    marks = {FEDERATED: "o", CENTRALIZED: "s", LOCAL: "^", RANDOM: "x"}
    figure, axes = plt.subplots(figsize=(7.2, 0.55 * len(rows) + 1.2), layout="constrained")
    for place, (name, loss) in enumerate(reversed(rows)):
        for shift, arm in enumerate(colors):
            resampled = found.get((name, loss, arm))
            estimate = Estimate(None) if resampled is None else resampled.estimate()
            if estimate.value is None or estimate.interval is None:
                continue
            y = place + 0.27 - 0.18 * shift
            axes.plot(estimate.interval, [y, y], color=colors[arm], linewidth=1.6)
            axes.plot([estimate.value], [y], marks[arm], color=colors[arm], label=label_of(arm) if place == 0 else None)
    for (what, ideal), style in zip(ceiling.items(), ("-", "--", ":"), strict=True):
        axes.axvline(ideal.value or 0.5, color="black", linewidth=1, linestyle=style, label=what)
    axes.axvline(0.5, color="#bbbbbb", linewidth=1)
    axes.set_yticks(range(len(rows)), [f"{name}, {loss}" for name, loss in reversed(rows)])
    axes.set_xlabel("C-index within centers, 95 % interval")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=4, frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=PIXELS, metadata={"Software": None})
    plt.close(figure)
    caption = "Synthetic data. Lines: Harrell's C of the true hazard and of its parts on the same pairs; grey: chance."
    return Picture("Every arm beside the ceiling", caption, png=buffer.getvalue())
