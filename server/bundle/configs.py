"""The bundle's configuration: metadata by MONAI's schema, and from files to an answer as MONAI transforms.

`client.data.images` and these transforms bring a case to the same voxels with the same intensities where the view's
crop is `center` or `none` (`server.bundle.grid`). `head_neck` and `foreground` are rules of ours that look at the
image: such a bundle says that it wants the box as input.
"""

from __future__ import annotations

from typing import Any

import monai
import numpy as np
import torch

from common.config.options import AXES, PET_SUV
from common.config.step import Step
from common.data.batch import CT, PET
from common.errors import BankError

OWN = [
    f"$from scripts.grid import {name}" for name in ("answered", "background_beyond", "grid_of", "smoothed", "written")
]
SCHEMA = "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"


def metadata(step: Step, *, outputs: list[str], title: str, description: str, version: str) -> dict[str, Any]:
    """``configs/metadata.json``.

    Args:
        outputs: what each channel of the output is.
    """
    channels = {str(place): name for place, name in enumerate(step.modalities)}
    image = {
        "type": "image",
        "format": "magnitude",
        "modality": "+".join(step.modalities),
        "num_channels": len(step.modalities),
        "spatial_shape": list(step.view.window),
        "dtype": "float32",
        "value_range": [-1, 1] if step.modalities == [CT] else [],
        "is_patch_data": True,
        "channel_def": channels,
    }
    is_mask = step.task.kind == "segmentation"
    pred = {
        "type": "image" if is_mask else "probabilities",
        "format": "segmentation" if is_mask else "classification",
        "num_channels": len(outputs),
        "spatial_shape": list(step.view.window) if is_mask else [1],
        "dtype": "float32",
        "value_range": [],
        "is_patch_data": is_mask,
        "channel_def": {str(place): name for place, name in enumerate(outputs)},
    }
    return {
        "schema": SCHEMA,
        "version": version,
        "changelog": {version: "exported"},
        "monai_version": monai.__version__,
        "pytorch_version": torch.__version__.partition("+")[0],
        "numpy_version": np.__version__,
        "required_packages_version": {"nibabel": "5.3"},
        "name": title,
        "task": f"{step.task.kind} on {step.region}",
        "description": description,
        "authors": "the federation's centers",
        "copyright": "see docs/README.md: the licence of the frozen model's weights holds for this bundle",
        "intended_use": "Research use only, not for diagnosis",
        "network_data_format": {"inputs": {"image": image}, "outputs": {"pred": pred}},
    }


def inference(step: Step) -> dict[str, Any]:
    """``configs/inference.json``: ``python -m monai.bundle run --config_file configs/inference.json`` in the bundle.

    Images are ``input/<MODALITY>/*.nii.gz``, one file a patient and modality, in one order.

    Raises:
        BankError: the view scales a modality by a rule that MONAI has no transform for.
    """
    keys = list(step.modalities)
    files = {name: f"$sorted(glob.glob(@input_dir + '/{name}/*.nii*'))" for name in keys}
    lists = ", ".join(f"@files#{name}" for name in keys)
    names = ", ".join(f"'{name}'" for name in keys)
    windows = {"roi_size": list(step.view.window), "sw_batch_size": 1, "overlap": step.view.overlap, "mode": "gaussian"}
    return {
        "imports": ["$import functools", "$import glob", "$import torch", *OWN],
        "bundle_root": ".",
        "input_dir": "$@bundle_root + '/input'",
        "output_dir": "$@bundle_root + '/output'",
        "device": "$torch.device('cpu')",
        "files": files,
        "data": f"$[dict(zip([{names}], row)) for row in zip({lists}, strict=True)]",
        "network_def": "$torch.export.load(@bundle_root + '/models/model.pt2').module()",
        "preprocessing": {"_target_": "Compose", "transforms": preprocessing(step)},
        "dataset": {"_target_": "Dataset", "data": "@data", "transform": "@preprocessing"},
        "dataloader": {"_target_": "DataLoader", "dataset": "@dataset", "batch_size": 1},
        "inferer": {"_target_": "SlidingWindowInferer", **windows},
        "postprocessing": {"_target_": "Compose", "transforms": _postprocessing(step)},
        # MONAI's evaluator needs pytorch-ignite; a transform over the loader's batches needs torch and MONAI alone.
        "run": ["$torch.set_grad_enabled(False)", "$list(map(@postprocessing, @dataloader))"],
    }


def preprocessing(step: Step) -> list[dict[str, Any]]:
    """From files to ``image`` (M, D, H, W), axes z, y, x, as the network saw them."""
    view, keys = step.view, list(step.modalities)
    spacing, window = list(reversed(view.spacing_mm)), list(reversed(view.window))  # ours are (z, y, x)
    size = None if view.size is None or view.crop == "none" else list(reversed(view.size))
    found: list[dict[str, Any]] = [{"_target_": "LoadImaged", "keys": keys, "ensure_channel_first": True}]
    if CT in keys:  # clipped before anything is interpolated; air is 0 until the end, as what lies outside is
        low, high = view.ct_hu
        found.append(_ranged(CT, (low, high), (0.0, 2.0)))
    grid = f"$functools.partial(grid_of, spacing={spacing}, size={size}, window={window})"
    found += [
        {"_target_": "CopyItemsd", "keys": keys[:1], "names": "grid"},
        {"_target_": "Lambdad", "keys": "grid", "func": grid},
        {"_target_": "Lambdad", "keys": keys, "func": f"$functools.partial(smoothed, spacing={spacing})"},
        {"_target_": "ResampleToMatchd", "keys": keys, "key_dst": "grid", "mode": "bilinear", "padding_mode": "zeros"},
    ]
    found += [_scaling(step, name) for name in keys]
    found.append({"_target_": "ConcatItemsd", "keys": keys, "name": "image"})
    return [*found, {"_target_": "Transposed", "keys": ["image"], "indices": [0, 3, 2, 1]}]


def _ranged(name: str, given: tuple[float, float], wanted: tuple[float, float]) -> dict[str, Any]:
    ends = {"a_min": given[0], "a_max": given[1], "b_min": wanted[0], "b_max": wanted[1], "clip": True}
    return {"_target_": "ScaleIntensityRanged", "keys": [name], **ends}


def _scaling(step: Step, name: str) -> dict[str, Any]:
    """Of one modality, on the crop."""
    view = step.view
    if name == CT:
        return _ranged(CT, (0.0, 2.0), (-1.0, 1.0))
    if name == PET and view.pet == "suv":
        return _ranged(PET, PET_SUV, (0.0, 1.0))
    if name == PET and view.pet == "zscore":
        return {"_target_": "NormalizeIntensityd", "keys": [name]}
    if view.intensities.get(name, "zscore") == "zscore":
        return {"_target_": "NormalizeIntensityd", "keys": [name], "nonzero": True}
    raise BankError(
        f"The view scales {name} by '{view.intensities[name]}', which MONAI has no transform for; use `python -m "
        "client predict`, or export a lineage that scales by zscore."
    )


def _postprocessing(step: Step) -> list[dict[str, Any]]:
    """The network's answer; of a segmentation, its probabilities brought to the first file's own grid, and saved."""
    if step.task.kind != "segmentation":
        written = "$functools.partial(written, network=@network_def, folder=@output_dir)"
        return [{"_target_": "Lambdad", "keys": "image", "func": written}]
    mirrors = [2 + AXES.index(name) for name in step.view.mirrors]
    answer = f"$functools.partial(answered, inferer=@inferer, network=@network_def, mirrors={mirrors})"
    inverse = {"transform": "@preprocessing", "orig_keys": step.modalities[0], "nearest_interp": False}
    return [
        {"_target_": "CopyItemsd", "keys": "image", "names": "pred"},
        {"_target_": "Lambdad", "keys": "pred", "func": answer},
        {"_target_": "Decollated", "keys": None, "detach": True},
        {"_target_": "Activationsd", "keys": "pred", "softmax": True},
        {"_target_": "Transposed", "keys": "pred", "indices": [0, 3, 2, 1]},  # as files have their axes
        {"_target_": "Invertd", "keys": "pred", **inverse, "to_tensor": True},
        {"_target_": "Lambdad", "keys": "pred", "func": "$background_beyond"},
        {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
        {"_target_": "SaveImaged", "keys": "pred", "output_dir": "@output_dir", "separate_folder": False},
    ]
