"""Virtual hospitals: one ``center.yaml`` per center found under the data roots, all on this machine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from omegaconf import OmegaConf

from client.center.config import CenterConfig
from client.data.layouts import find_cases
from client.node.keys import make_keys
from client.policy import Policy
from client.policy.policy import ALL
from common.config.run import Run
from common.data.batch import EHR, RECORD, in_order
from common.errors import DataError
from common.files import write_bytes
from server.run.folder import RunFolder
from simulations.phantom import make_cohort

KEYS = "keys"  # folder beside the centers' files, where steps are summed securely


def data_roots(run: Run, *, progress: Callable[[int, int], None] | None = None) -> list[Path]:
    """The run's data folders; a phantom cohort is made on first use."""
    if run.data.kind == "phantom":
        root = Path(run.data.root)
        make_cohort(root, scale=run.data.scale, seed=run.data.seed, organs=run.data.organs, progress=progress)
        return [root / "hecktor", root / "chest"]
    roots = [Path(run.data.root), *([Path(run.data.chest_root)] if run.data.chest_root else [])]
    for root in roots:
        if not root.is_dir():
            raise DataError(f"Data root {root} does not exist; set data.root to the folder of the images.")
    return roots


def write_centers(run: Run, folder: RunFolder, roots: list[Path]) -> tuple[dict[str, Path], dict[str, int]]:
    """Write every center's file; the files and the number of cases, by center code."""
    files: dict[str, Path] = {}
    sizes: dict[str, int] = {}
    for root in roots:
        for code, cases in sorted(
            Counter(case.center for case in find_cases(root, mapping=run.data.mapping, layout=run.data.layout)).items()
        ):
            files[code] = folder.centers / f"{code}.yaml"
            sizes[code] = cases
            write_bytes(files[code], _center_yaml(run, code, root, folder).encode())
    if _sums_securely(run):
        for code in files:
            make_keys(_keys(folder) / code, comment=f"fedgraft-{code}")
    return files, sizes


def _sums_securely(run: Run) -> bool:
    return any(step.federation.secure_aggregation for step in {**run.controls, **run.steps}.values())


def _center_yaml(run: Run, code: str, root: Path, folder: RunFolder) -> str:
    config = CenterConfig(
        code=code,
        root=str(root.resolve()),
        mapping=str(Path(run.data.mapping).resolve()) if run.data.mapping else "",
        layout=_layout(run.data.layout),
        cache=str((Path(".cache") / "volumes").resolve()),
        vault=str((folder.path / "vaults" / code).resolve()),
        device=run.runtime.device,
        threads=run.runtime.threads,
        mixed_precision=run.runtime.mixed_precision,
        deterministic=run.runtime.deterministic,
        gpu_memory_gb=run.runtime.gpu_memory_gb,
        modalities=_modalities(run),
        policy=open_policy(run),
        key=str(_keys(folder) / code) if _sums_securely(run) else "",
        partners=str(_keys(folder)) if _sums_securely(run) else "",
    )
    return "# A simulated center, written by simulations/virtual/centers.py\n" + OmegaConf.to_yaml(
        OmegaConf.create(asdict(config))
    )


def _keys(folder: RunFolder) -> Path:
    """Where every simulated center finds its own key and the others': here they need not be sent."""
    return (folder.centers / KEYS).resolve()


def open_policy(run: Run) -> Policy:
    """What a simulated center allows: whatever a step can be at all, for as many patients as the run's data say."""
    return Policy(
        federations=[ALL],
        parts=[ALL],
        reach=None,
        test_folds="all",
        minimum_cases=run.data.minimum_cases,
        minimum_cell=run.data.minimum_cell,
        minimum_batch=1,
        maximum_epochs=10_000,
        maximum_rounds=100_000,
        maximum_questions=1_000_000,
        maximum_vault_gb=None,
    )


def _layout(layout: str) -> str:
    """A declared layout's path as a worker in another folder finds it."""
    return str(Path(layout).resolve()) if Path(layout).is_file() else layout


def _modalities(run: Run) -> list[str]:
    """What a simulated center lets steps see: all that they ask for. EHR stands for the record, too."""
    asked = (m for step in run.steps.values() for m in step.modalities)
    return list(in_order({*CenterConfig().modalities, *asked, EHR} - {RECORD}))
