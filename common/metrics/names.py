"""Metrics as people read them."""

from __future__ import annotations

METRICS = {
    "accuracy": "Accuracy",
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
    "surface_dice": "surface Dice",
    "loss": "Loss",
}


def metric_name(metric: str) -> str:
    """A metric's printed name; the metric of one structure keeps the structure: ``dice.GTVp`` -> ``Dice GTVp``."""
    head, _, rest = metric.partition(".")
    return f"{METRICS.get(head.lower(), head)} {rest}".strip()
