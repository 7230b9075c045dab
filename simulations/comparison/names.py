"""The arms of every comparison and study: each one's name in files, and how people read it."""

from __future__ import annotations

FEDERATED, CENTRALIZED, LOCAL = "federated", "centralized", "local"
EXACT, RANDOM, UNTRAINED = "federated Newton", "random backbone", "untrained"
BLURS, EXACT_RANDOM = "raw and blurs, Newton", "random backbone, Newton"
UNET, UNET_CENTRALIZED, UNET_LOCAL = "U-Net", "U-Net, centralized", "U-Net, local"
FEDAVG, FEDADAM, LEFT_OUT = "FedAvg", "FedAdam", "leave one center out"

ON_NETWORK = (UNET, UNET_CENTRALIZED, UNET_LOCAL)  # a small U-Net from random weights in the place of every adapter
FEDERATIONS = (FEDERATED, RANDOM, UNET)  # arms that are whole federated runs
ALONE = (LOCAL, UNET_LOCAL)  # arms in which each center trains for itself

PATIENTS = "patients"  # a run's or the federated arm's scores from its patients' records, with intervals

LABELS = {LOCAL: "local only", UNET_LOCAL: "U-Net, local only"}  # where the name in files is not what people read
EARLIER = {"local only": LOCAL, "pooled": CENTRALIZED}  # names in results that were written before there was one list


def label_of(arm: str) -> str:
    """An arm as people read it."""
    return LABELS.get(arm, arm)


def arm_of(name: str) -> str:
    """The arm behind a name that stands in a file."""
    return EARLIER.get(name, name)
