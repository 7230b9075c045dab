"""Metrics as people read them, what guessing would score, and how much worse is not inferior."""

from __future__ import annotations

METRICS = {
    "accuracy": "Accuracy",
    "ap": "AP",
    "ap50": "AP50",
    "ap75": "AP75",
    "auroc": "AUROC",
    "balanced_accuracy": "Balanced accuracy",
    "c_index": "C-index",
    "cindex": "C-index",
    "concordance": "C-index",
    "dice": "Dice",
    "dice_agg": "aggregated Dice",
    "dsc": "Dice",
    "dsc_agg": "aggregated Dice",
    "dsc_agg_ceiling": "aggregated Dice of a perfect mask on the training grid",
    "dice_ceiling": "Dice of a perfect mask on the training grid",
    "hd95": "HD95 (mm)",
    "lesion_f1": "lesion-wise F1",
    "restored": "restored share",
    "surface_dice": "surface Dice",
    "loss": "Loss",
}
CHANCE = {"auroc": 0.5, "balanced_accuracy": 0.5, "c_index": 0.5}  # the value of guessing, where it is not zero
MARGINS = {"c_index": 0.02, "dice": 0.01, "dsc_agg": 0.01}  # of non-inferiority, stated before any run


def chance(metric: str) -> float | None:
    """The value of guessing; None where none is known. The metric of one structure has that of all."""
    return CHANCE.get(_plain(metric))


def margin(metric: str) -> float | None:
    """How much worse still counts as not inferior; None where nobody said."""
    return MARGINS.get(_plain(metric))


def _plain(metric: str) -> str:
    """The plain name of the same metric: without a structure, whatever a results file calls it."""
    head = metric.partition(".")[0].lower()
    return next((name for name in (*CHANCE, *MARGINS) if METRICS[name] == METRICS.get(head)), head)


def metric_name(metric: str) -> str:
    """A metric's printed name; the metric of one structure keeps the structure: ``dice.GTVp`` -> ``Dice GTVp``."""
    head, _, rest = metric.partition(".")
    return f"{METRICS.get(head.lower(), head)} {rest}".strip()
