"""Which parts fit together, and which parts a case reaches: from a step's declaration alone, without a model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from common.config.adapter import PARTS, role_of
from common.config.options import SUV
from common.config.step import Step
from common.data.batch import CT, EHR, PET, RECORD, is_volume, volumes_of

HEAD = "head"
IMAGE, TEXT = "image", "text"
# What torch.nn.ModuleDict, which holds a model's parts, calls its own (beside names that begin with _);
# transformers adds smart_apply to every module.
RESERVED = frozenset({
    HEAD, "T_destination", "add_module", "apply", "bfloat16", "buffers", "call_super_init", "children", "clear",
    "compile", "cpu", "cuda", "double", "dump_patches", "eval", "extra_repr", "float", "forward", "get_buffer",
    "get_extra_state", "get_parameter", "get_submodule", "half", "ipu", "items", "keys", "load_state_dict", "modules",
    "mtia", "named_buffers", "named_children", "named_modules", "named_parameters", "parameters", "pop",
    "register_backward_hook", "register_buffer", "register_forward_hook", "register_forward_pre_hook",
    "register_full_backward_hook", "register_full_backward_pre_hook", "register_load_state_dict_post_hook",
    "register_load_state_dict_pre_hook", "register_module", "register_parameter", "register_state_dict_post_hook",
    "register_state_dict_pre_hook", "requires_grad_", "set_extra_state", "set_submodule", "share_memory",
    "smart_apply", "state_dict", "to", "to_empty", "train", "training", "type", "update", "values", "xpu", "zero_grad",
})  # fmt: skip
SOURCES = (IMAGE, TEXT)  # what embeddings are made of
ONE_OF_A_KIND = ("decoder", "full", "fusion", "join", "resolution", "unet", "uptake")
ONE_PER_MODALITY = ("patch_embed", "skip", "stand_in")
MODES = ("attention", "mlp")  # how a fusion part joins embeddings
ENDS = ("fusion", "linear", "mlp")  # what stands between embeddings of a whole image and a head
STYLES = ("auto", "light", "linear", "unetr")
PLACES = ("add", "beside")

Parts = Mapping[str, Any]


def feeds(modality: str, source: str) -> bool:
    """Whether a modality is part of an embedding: every volume of the image's, reports of the text's."""
    return is_volume(modality) if source == IMAGE else source == TEXT and modality == EHR


def misfits(step: Step) -> list[str]:
    """Everything that is wrong with a step's parts, one sentence each."""
    parts = step.adapter.parts
    unknown = [
        f"part '{name}' has kind '{getattr(spec, 'kind', None)}'; known: {', '.join(sorted(PARTS))}."
        for name, spec in parts.items()
        if getattr(spec, "kind", None) not in PARTS
    ]
    if unknown or step.task is None:
        return unknown
    return [sentence for rule in RULES for sentence in rule(step)]


def reached(parts: Parts, shown: Collection[str]) -> set[str]:
    """Parts that take part in the output of a case which shows these modalities; the others get no gradient from it.

    A part that no case of a center reaches is not sent, so averages are over the centers that trained it.
    """
    return {HEAD, *(name for name, spec in parts.items() if _is_reached(spec, set(shown)))}


def _is_reached(spec: Any, shown: set[str]) -> bool:
    if role_of(spec) in ("patch_embed", "skip", "uptake"):
        return spec.modality in shown
    if role_of(spec) == "stand_in":
        return volumes_of(shown) == (spec.modality,)
    if role_of(spec) == "mlp":
        return any(feeds(modality, spec.input) for modality in shown)
    if role_of(spec) == "resolution":
        return CT in shown
    return role_of(spec) != "join" or bool(volumes_of(shown))


def _names(step: Step) -> Iterator[str]:
    for name in step.adapter.parts:
        if {"/", "."} & {*name} or name.startswith("_") or name in RESERVED:
            yield (
                f"a part cannot be called '{name}'; choose a name without '/', '.' and a leading '_' that torch does "
                "not use."
            )


def _numbers(step: Step) -> Iterator[str]:
    kinds = Counter(role_of(spec) for spec in step.adapter.parts.values())
    for kind in (kind for kind in ONE_OF_A_KIND if kinds[kind] > 1):
        yield f"it has {kinds[kind]} {kind} parts, at most one fits."
    if kinds["full"] and kinds["lora"]:
        yield "a full part trains the layers that a lora part would adapt; take one of them out."
    for kind in ONE_PER_MODALITY:
        seen = Counter(spec.modality for spec in step.adapter.parts.values() if role_of(spec) == kind)
        for modality in (m for m, count in sorted(seen.items()) if count > 1):
            yield f"it has {seen[modality]} {kind} parts for {modality}, at most one fits."


def _values(step: Step) -> Iterator[str]:
    for name, spec in step.adapter.parts.items():
        if role_of(spec) == "lora" and (spec.rank < 1 or not 0 <= spec.dropout < 1):
            yield f"part '{name}' has rank {spec.rank} and dropout {spec.dropout}; use rank >= 1, dropout in [0, 1)."
        if role_of(spec) == "patch_embed" and spec.init not in ("copy", "zero"):
            yield f"part '{name}' has init '{spec.init}'; it can be copy or zero."
        if role_of(spec) == "patch_embed" and spec.place not in PLACES:
            yield f"part '{name}' has place '{spec.place}'; it can be {' or '.join(PLACES)}."
        if role_of(spec) == "fusion" and spec.mode not in MODES:
            yield f"part '{name}' has mode '{spec.mode}'; it can be {' or '.join(MODES)}."
        if role_of(spec) == "decoder" and spec.style not in STYLES:
            yield f"part '{name}' has style '{spec.style}'; it can be {', '.join(STYLES)}."


def _segmenting(step: Step) -> Iterator[str]:
    parts = step.adapter.parts
    decoders = [spec for spec in parts.values() if role_of(spec) == "decoder"]
    segments = step.task.kind == "segmentation"
    if segments and not decoders and not any(role_of(spec) in ("unet", "voxel_linear") for spec in parts.values()):
        yield (
            "segmentation needs a decoder part: adapter@steps.NAME.adapter=decoder, exact_voxels, fitted by sums, or "
            "unet, which reads no frozen model."
        )
    yield from _unet(step)
    if decoders and not segments:
        yield "a decoder part needs a segmentation task."
    if step.task.kind == "grounding" and not volumes_of(step.modalities):
        yield "grounding looks for boxes in an image, as CT or PET, and none is among the modalities."
    if step.task.kind == "grounding" and any(role_of(spec) in ENDS for spec in parts.values()):
        yield "grounding reads the frozen model's cells; leave out mlp, fusion and linear parts, which end elsewhere."
    if segments and not volumes_of(step.modalities):
        yield "segmentation needs an image, as CT or PET, among the modalities."
    for name, spec in ((name, spec) for name, spec in parts.items() if role_of(spec) == "skip"):
        if not decoders or decoders[0].style == "linear":
            yield f"part '{name}', a skip, needs a decoder part with a skip to be added to."
        elif spec.features != decoders[0].features:
            yield f"part '{name}' has {spec.features} features, the decoder {decoders[0].features}; make them equal."
    if decoders and getattr(decoders[0], "deep_supervision", False) and decoders[0].style == "linear":
        yield "deep_supervision needs levels between the encoder and the voxels, which a linear decoder does not have."
    yield from _absolute(step, has_decoder=bool(decoders))


def _unet(step: Step) -> Iterator[str]:
    """A network of its own is a step's only part, and halves windows without a rest."""
    for name, spec in ((name, spec) for name, spec in step.adapter.parts.items() if role_of(spec) == "unet"):
        if len(step.adapter.parts) > 1 or step.task.kind != "segmentation":
            yield f"part '{name}', a unet, is a step's only part, and for segmentation alone."
        if len(spec.widths) < 2:
            yield f"part '{name}' has widths {spec.widths}; a unet has two levels or more."
        whole = 2 ** (len(spec.widths) - 1)
        if any(side % whole for side in step.view.window):
            yield f"part '{name}' halves the window {list(step.view.window)} to 1/{whole}: use multiples of {whole}."


def _absolute(step: Step, *, has_decoder: bool) -> Iterator[str]:
    """Parts that read a PET's absolute uptake find it in the batch."""
    for name, spec in step.adapter.parts.items():
        reads = role_of(spec) == "uptake" or getattr(spec, "log_suv", False)
        if reads and (step.view.pet != SUV or PET not in step.modalities):
            yield f"part '{name}' reads absolute uptake: set view.pet=suv, with PET among the modalities."
        if role_of(spec) == "uptake" and not has_decoder:
            yield f"part '{name}', an uptake, needs a decoder part whose logits it is added to."
        if role_of(spec) == "uptake" and spec.modality != PET:
            yield f"part '{name}' reads the uptake of {spec.modality}; only a PET is in SUV."


def _inputs(step: Step) -> Iterator[str]:
    for name, spec in step.adapter.parts.items():
        wanted = getattr(spec, "modality", None)
        if wanted and wanted not in step.modalities:
            yield f"part '{name}' is for {wanted}, which is not among its modalities {step.modalities}."
        if role_of(spec) == "mlp" and spec.input not in SOURCES:
            yield f"part '{name}' has input '{spec.input}'; it can be {' or '.join(SOURCES)}."
        elif role_of(spec) == "mlp" and not any(feeds(modality, spec.input) for modality in step.modalities):
            read = "images, as CT or PET, none of which is" if spec.input == IMAGE else "EHR, which is not"
            yield f"part '{name}' reads {read} among its modalities {step.modalities}."


def _joining(step: Step) -> Iterator[str]:
    parts = step.adapter.parts
    kinds = {role_of(spec) for spec in parts.values()}
    embedded = {spec.modality for spec in parts.values() if role_of(spec) == "patch_embed"}
    in_sequence = any(role_of(spec) == "patch_embed" and spec.place == "beside" for spec in parts.values())
    if "join" in kinds and len(embedded) != 1:
        yield (
            "a join part needs a patch_embed part for PET, or for whatever is beside CT, whose tokens it joins with "
            f"CT's; it has {len(embedded)} of them, one fits."
        )
    if "join" in kinds and in_sequence:
        yield "a join part makes one set of tokens, a patch_embed part with place=beside keeps two; choose one."
    if "stand_in" in kinds and "join" not in kinds:
        yield "a stand_in part works in front of a join part; add one."


def _linear(step: Step) -> Iterator[str]:
    kinds = [role_of(spec) for spec in step.adapter.parts.values()]
    if "linear" in kinds and (len(kinds) > 1 or step.task.kind == "segmentation"):
        yield "a linear part is a step's only part, and not for segmentation."
    if "voxel_linear" in kinds and (len(kinds) > 1 or step.task.kind != "segmentation"):
        yield "a voxel_linear part is a step's only part, and for segmentation alone."
    if RECORD in step.modalities and "linear" not in kinds:
        yield "records are read by a linear part."


RULES = (_names, _numbers, _values, _segmenting, _inputs, _joining, _linear)
