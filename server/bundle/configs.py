"""The bundle's configuration: metadata by MONAI's schema, and from files to an answer as MONAI transforms.

`client.data.images` and these transforms bring a case to the same grid with the same intensities where the view's crop
is `center` or `none`; MONAI does not low-pass where it coarsens, so the tensors differ a little and masks at their
edges. `head_neck` and `foreground` are rules of ours that MONAI has no transform for: such a bundle says that it wants
the box as input.
"""

from __future__ import annotations

from typing import Any

import monai
import numpy as np
import torch

from common.config.step import Step
from common.data.batch import CT, PET
from common.errors import BankError

CROPPED_BEFORE = ("head_neck", "foreground")  # rules without a MONAI transform
SCHEMA = "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"
SUV_TOP = 25.0


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
        "copyright": "see docs/README.md: the frozen model's licence holds for this bundle",
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
    return {
        "imports": ["$import functools", "$import glob", "$import torch"],
        "bundle_root": ".",
        "input_dir": "$@bundle_root + '/input'",
        "output_dir": "$@bundle_root + '/output'",
        "device": "$torch.device('cpu')",
        "files": files,
        "data": f"$[dict(zip([{names}], row)) for row in zip({lists})]",
        "network_def": "$torch.export.load(@bundle_root + '/models/model.pt2').module()",
        "preprocessing": {"_target_": "Compose", "transforms": preprocessing(step)},
        "dataset": {"_target_": "Dataset", "data": "@data", "transform": "@preprocessing"},
        "dataloader": {"_target_": "DataLoader", "dataset": "@dataset", "batch_size": 1},
        "inferer": _inferer(step),
        "answer": {"_target_": "Lambdad", "keys": "pred", "func": "$functools.partial(@inferer, network=@network_def)"},
        "postprocessing": {"_target_": "Compose", "transforms": _postprocessing(step)},
        # MONAI's evaluator needs pytorch-ignite; a transform over the loader's batches needs torch and MONAI alone.
        "run": ["$torch.set_grad_enabled(False)", "$list(map(@postprocessing, @dataloader))"],
    }


def _inferer(step: Step) -> dict[str, Any]:
    if step.task.kind != "segmentation":
        return {"_target_": "SimpleInferer"}
    windows = {"roi_size": list(step.view.window), "sw_batch_size": 1, "overlap": 0.5, "mode": "gaussian"}
    return {"_target_": "SlidingWindowInferer", **windows}


def preprocessing(step: Step) -> list[dict[str, Any]]:
    """From files to ``image`` (M, D, H, W), axes z, y, x, as the network saw them."""
    view, keys = step.view, list(step.modalities)
    found: list[dict[str, Any]] = [
        {"_target_": "LoadImaged", "keys": keys, "ensure_channel_first": True},
        {"_target_": "Orientationd", "keys": keys, "axcodes": "RAS", "labels": None},
    ]
    if len(keys) > 1:  # every volume on the first one's grid, which the spacing then changes
        others = keys[1:]
        found.append({"_target_": "ResampleToMatchd", "keys": others, "key_dst": keys[0], "padding_mode": "zeros"})
    if all(view.spacing_mm):
        spacing = list(reversed(view.spacing_mm))  # ours are (z, y, x)
        found.append(
            {"_target_": "Spacingd", "keys": keys, "pixdim": spacing, "mode": "bilinear", "padding_mode": "border"}
        )
    if view.size is not None:
        size = list(reversed(view.size))
        if CT in keys:
            low = view.ct_hu[0]
            found.append({"_target_": "ResizeWithPadOrCropd", "keys": [CT], "spatial_size": size, "value": low})
        rest = [name for name in keys if name != CT]
        found += [{"_target_": "ResizeWithPadOrCropd", "keys": rest, "spatial_size": size}] if rest else []
    found += [rule for name in keys for rule in _scaling(step, name)]
    found.append({"_target_": "ConcatItemsd", "keys": keys, "name": "image"})
    return [*found, {"_target_": "Transposed", "keys": ["image"], "indices": [0, 3, 2, 1]}]


def _scaling(step: Step, name: str) -> list[dict[str, Any]]:
    view = step.view
    if name == CT:
        low, high = view.ct_hu
        ends = {"a_min": low, "a_max": high, "b_min": -1.0, "b_max": 1.0, "clip": True}
        return [{"_target_": "ScaleIntensityRanged", "keys": [name], **ends}]
    if name == PET and view.pet == "suv":
        ends = {"a_min": 0.0, "a_max": SUV_TOP, "b_min": 0.0, "b_max": 1.0, "clip": True}
        return [{"_target_": "ScaleIntensityRanged", "keys": [name], **ends}]
    if name == PET and view.pet == "zscore":
        return [{"_target_": "NormalizeIntensityd", "keys": [name]}]
    if view.intensities.get(name, "zscore") == "zscore":
        return [{"_target_": "NormalizeIntensityd", "keys": [name], "nonzero": True}]
    raise BankError(
        f"The view scales {name} by '{view.intensities[name]}', which MONAI has no transform for; use `python -m "
        "client predict`, or export a lineage that scales by zscore."
    )


def _postprocessing(step: Step) -> list[dict[str, Any]]:
    """The network's answer; of a segmentation, its probabilities brought to the first file's own grid, and saved."""
    answered: list[Any] = [
        {"_target_": "CopyItemsd", "keys": "image", "names": "pred"},
        "@answer",
        {"_target_": "Decollated", "keys": None, "detach": True},
    ]
    if step.task.kind != "segmentation":
        return [
            *answered,
            {"_target_": "SaveImaged", "keys": "pred", "output_dir": "@output_dir", "output_ext": ".npy"},
        ]
    first = step.modalities[0]
    inverse = {"transform": "@preprocessing", "orig_keys": first, "nearest_interp": False, "to_tensor": True}
    return [
        *answered,
        {"_target_": "Activationsd", "keys": "pred", "softmax": True},
        {"_target_": "Transposed", "keys": "pred", "indices": [0, 3, 2, 1]},  # as files have their axes
        {"_target_": "Invertd", "keys": "pred", **inverse},
        {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
        {"_target_": "SaveImaged", "keys": "pred", "output_dir": "@output_dir", "separate_folder": False},
    ]
