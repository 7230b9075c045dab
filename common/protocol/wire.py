"""Domain objects <-> Flower records, and the allowlist of what may travel.

An order carries ``arrays`` (the adapter state), ``known`` (merged sums) and ``config`` (strings and numbers); a reply
carries ``arrays``, ``sums`` and ``status``. What a reply holds is checked against the step's declaration on both sides:
before it leaves the center, and before the server looks at it.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, RecordDict

from common.backbones.base import tensors_digest
from common.config.load import from_json, step_from_json, step_to_json, to_json
from common.config.run import BackboneSpec, Split
from common.data.subgroups import levels_of, named, sums_told
from common.errors import WireError
from common.privacy.masking.asked import Masking
from common.protocol.arrays import (
    MAX_ARRAYS,
    Form,
    Undeclared,
    check_amount,
    check_headers,
    checked,
    encoded,
    form_of,
    pack_state,
    unpack_state,
)
from common.protocol.messages import EXTRA, Order, Reply, State, Sums
from common.protocol.triangles import packed, unpacked
from common.tasks.unlearned.paired import paired_shapes
from common.text import is_plain, one_line

COUNTS_OF = {  # action -> the counts that its answer's status may hold
    "describe": ("merged", "test", "train", "validation", "waiting"),
    "evaluate": ("afresh", "cases", "merged", "skipped", "suppressed", "waiting"),
    "masking": (),
    "stage": (),
    "sums": ("adjusted", "cases", "merged", "skipped", "waiting"),
    "train": ("afresh", "ahead", "batches", "cases", "skipped"),
}
STATUS_COUNTS = tuple(sorted({name for counts in COUNTS_OF.values() for name in counts}))
CODE = re.compile(r"[a-z0-9_.:-]{1,60}")
CENTER = re.compile(r"[A-Za-z0-9_-]{1,32}")
ORDER = re.compile(r"[0-9a-f]{64}|")
LARGE = 64 << 20  # bytes of arrays that are compared with the step's declaration before they are decoded
NAME, TEXT = 120, 512  # characters of a step's name, and of any other text in an order
LONG_TEXTS = {"masking": 1 << 22, "step": 1 << 20, "compared": 1 << 20, "backbone": 1 << 14, "split": 1 << 12}
TEST = "test"  # the only split whose scores are told by subgroup
TOO_MUCH_KNOWN = "An order's known sums are larger than any step's."
FIT_SUMS: dict[str, tuple[int, ...]] = {"fit.loss": (), "fit.cases": (), "fit.batches": ()}


class DeclaresSums(Protocol):
    """What of a task matters here."""

    @property
    def sum_shapes(self) -> dict[str, tuple[int, ...]]: ...

    @property
    def curve_shapes(self) -> dict[str, tuple[int, ...]]: ...

    @property
    def label_shapes(self) -> dict[str, tuple[int, ...]]: ...

    @property
    def by_subgroup(self) -> Mapping[str, tuple[str, ...]]: ...


def declared_sums(task: DeclaresSums, *, curves: bool) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every sum that a step's scores may carry; ``curves`` where the order wants them."""
    fit = {} if getattr(task, "is_noised", False) else FIT_SUMS  # a loss has no bound that noise could hide
    return {**fit, **task.sum_shapes, **(task.curve_shapes if curves else {})}


def declared_scores(order: Order, task: DeclaresSums) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every sum that the answer to an order for scores may carry, those by subgroup among them; of a
    comparison of two models its paired sums alone."""
    if order.compared is not None:
        return paired_shapes(order.step.task)
    shapes = declared_sums(task, curves=order.wants_curves)
    if order.subset == TEST:
        needed = sums_told(task.by_subgroup)
        own = {name: task.sum_shapes[name] for name in needed} | {"cases": ()}
        for level in levels_of(order.step) if needed else ():
            shapes |= named(level, own)
    return shapes


def pack_order(order: Order, action: str = "", *, identity: str = "") -> RecordDict:
    """An order as Flower content.

    Args:
        action: what is asked, the message's type: of two questions about the same state each has an id of its own.
        identity: from `identity_of`, where it is known already.
    """
    arrays = pack_state(with_extra(order.state, order.extra))
    config = config_of(order, action)
    config["id"] = identity or identity_of(order, config)
    return RecordDict({"arrays": arrays, "known": _pack_sums(order.known), "config": ConfigRecord(config)})


def identity_of(order: Order, config: Mapping[str, Any], *, state_digest: str = "") -> str:
    """An order's id: SHA-256 of everything in it but the id, the same whether it travels as bytes or is handed over.

    Args:
        config: from `config_of`, with what is asked.
        state_digest: `tensors_digest` of its state, where it is known already: one state stands in several orders.
    """
    digest = hashlib.sha256()
    for name, value in sorted(config.items()):
        digest.update(f"{name}|{value!r}|".encode())
    digest.update(f"{state_digest or tensors_digest(order.state)}|{tensors_digest(order.extra)}|".encode())
    for name in sorted(order.known):
        known = np.asarray(order.known[name], np.float64)
        digest.update(f"{name}|{known.shape}|".encode() + known.tobytes())
    return digest.hexdigest()


def config_of(order: Order, action: str) -> dict[str, Any]:
    """Everything in an order but its arrays and its id, as strings, numbers and lists of them."""
    config: dict[str, Any] = {
        "action": action,
        "step": step_to_json(order.step),
        "backbone": to_json(order.backbone),
        "split": to_json(order.split),
        "seed": order.seed,
        "round": order.round,
        "base": order.base,
        "skip_unreadable": order.skip_unreadable,
        "minimum_cell": order.minimum_cell,
        "subset": order.subset,
        "mode": order.mode,
    }
    config |= {"since": order.since, "best": order.best, "met": order.met, "seeded": list(order.seeded)}
    config |= {"attempt": order.attempt, "continues": order.continues, "earlier": order.earlier}
    config |= {"reference": order.reference, "digest": order.digest, "run": order.run}
    if order.root:
        config |= {"root": order.root, "merged": list(order.merged)}
    if order.teacher:
        config["teacher"] = order.teacher
    if order.stage:
        config |= {"stage": order.stage, "parents": list(order.parents), "grown": order.grown}
    if order.masking is not None:
        config["masking"] = to_json(order.masking)
    if order.compared is not None:
        config["compared"] = step_to_json(order.compared)
    if order.threshold is not None:
        config["threshold"] = float(order.threshold)
    return config


def order_id(content: RecordDict) -> str:
    """The id of a packed order."""
    return str(content.config_records["config"]["id"])


def unpack_order(content: RecordDict, declared: Callable[[Order], tuple[State, State]] | None = None) -> Order:
    """Flower content as an order.

    Args:
        declared: what arrays and extras an order may carry; asked before a large order's are decoded.

    Raises:
        WireError, ConfigError: it is no order, is longer than any, or carries other arrays.
    """
    try:
        check_amount(content.array_records.values())
        known = content.array_records["known"]
        if sum(len(array.data) for array in known.values()) > LARGE:
            raise WireError(TOO_MUCH_KNOWN)
        config = content.config_records["config"]
        order = order_of(config, {name: checked(name, array) for name, array in known.items()})
        arrays = content.array_records["arrays"]
        if declared is not None and sum(len(array.data) for array in arrays.values()) > LARGE:
            check_headers(arrays, form_of(*declared(order)).arrays)
        state, extra = apart(unpack_state(arrays))
        return replace(order, state=state, extra=extra)
    except KeyError as error:
        raise WireError(f"An order lacks {error}; server and client must run the same release.") from error
    except (TypeError, ValueError, AttributeError) as error:
        raise WireError(f"An order cannot be read ({type(error).__name__}); use the same release.") from error


def _check_texts(config: Mapping[str, Any]) -> None:
    """Refuse texts that no order has, before one is parsed, logged or recorded."""
    for name, value in config.items():
        if isinstance(value, str) and len(value) > LONG_TEXTS.get(name, TEXT):
            raise WireError(f"An order's {one_line(name, 40)} is {len(value)} characters long.")
        if isinstance(value, list) and len(value) > MAX_ARRAYS:
            raise WireError(f"An order's {one_line(name, 40)} lists {len(value)} names.")
    for name in ("base", "subset", "mode", "reference", "digest", "run", "id", "continues"):
        if not is_plain(str(config[name]), TEXT):
            raise WireError(f"An order's {name} is not one line of text.")


def order_of(config: Mapping[str, Any], known: Sums) -> Order:
    """An order without its arrays, from what `config_of` says of one.

    Raises:
        WireError, ConfigError: texts that no order has, or a step that is none.
        KeyError, TypeError, ValueError: something is missing, or of another type.
    """
    _check_texts(config)
    step = step_from_json(str(config["step"]))
    if not is_plain(step.name, NAME):
        raise WireError(f"A step's name is one line of at most {NAME} characters.")
    return Order(
        step=step,
        backbone=from_json(BackboneSpec, str(config["backbone"])),
        split=from_json(Split, str(config["split"])),
        seed=int(config["seed"]),
        round=int(config["round"]),
        base=str(config["base"]),
        skip_unreadable=bool(config["skip_unreadable"]),
        minimum_cell=int(config["minimum_cell"]),
        subset=str(config["subset"]),
        mode=str(config["mode"]),
        threshold=float(config["threshold"]) if "threshold" in config else None,
        since=int(config["since"]),
        best=int(config["best"]),
        met=bool(config["met"]),
        attempt=int(config["attempt"]),
        continues=str(config["continues"]),
        earlier=int(config["earlier"]),
        seeded=[str(name) for name in config["seeded"]],
        reference=str(config["reference"]),
        digest=str(config["digest"]),
        root=str(config.get("root", "")),
        merged=_listed(config, "merged"),
        teacher=str(config.get("teacher", "")),
        stage=str(config.get("stage", "")),
        parents=_listed(config, "parents"),
        grown=str(config.get("grown", "")),
        run=str(config["run"]),
        compared=step_from_json(str(config["compared"])) if "compared" in config else None,
        masking=from_json(Masking, str(config["masking"])) if "masking" in config else None,
        id=str(config["id"]),
        known=known,
    )


def _listed(config: Mapping[str, Any], name: str) -> list[str]:
    value = config.get(name, [])
    if not isinstance(value, list):
        raise WireError(f"An order's {name} is no list of names.")
    return [str(key) for key in value]


def pack_reply(reply: Reply) -> RecordDict:
    """A reply as Flower content."""
    sums = _pack_sums(reply.sums)
    arrays = pack_state(with_extra(reply.state, reply.extra))
    return RecordDict({"arrays": arrays, "sums": sums, "status": ConfigRecord(status_of(reply))})


def status_of(reply: Reply) -> dict[str, Any]:
    """Everything in a reply but its arrays and sums."""
    return {
        "center": reply.center,
        "code": reply.code,
        "seconds": float(reply.seconds),
        "round": int(reply.round),
        "order": reply.order,
        **reply.counts,
    }


def unpack_reply(content: RecordDict, form: Form | None = None) -> Reply:
    """Flower content as a reply.

    Args:
        form: what it may carry: names, types, shapes and lengths are compared before any array is decoded.

    Returns a reply with the code ``undeclared`` and without arrays where it carries others.

    Raises:
        WireError: it carries anything but arrays, sums and a status.
    """
    unasked = sorted(set(content) - {"arrays", "sums", "status"})
    missing = sorted({"arrays", "sums", "status"} - set(content))
    if unasked or missing:
        raise WireError(
            f"A reply must hold arrays, sums and status; extra: {one_line(str(unasked), 100)}, missing: {missing}."
        )
    if not isinstance(content["status"], ConfigRecord) or not all(
        isinstance(content[name], ArrayRecord) for name in ("arrays", "sums")
    ):
        raise WireError("A reply's arrays and sums must be arrays and its status strings and numbers.")
    reply = reply_of(dict(content.config_records["status"]))
    arrays, sums = content.array_records["arrays"], content.array_records["sums"]
    if form is not None:
        try:
            check_headers(arrays, form.arrays)
            check_headers(sums, form.sums)
        except Undeclared as error:
            return replace(reply, code=error.code, told=str(error))
    state, extra = apart(unpack_state(arrays))
    found = {name: unpacked(name, checked(name, array)) for name, array in sums.items()}
    return replace(reply, state=state, extra=extra, sums=found)


def reply_of(status: dict[str, Any]) -> Reply:
    """A reply without arrays and sums, from its status. Raises WireError where that is none."""
    center, code, seconds = str(status.pop("center", "")), str(status.pop("code", "")), status.pop("seconds", 0.0)
    number, order = status.pop("round", None), str(status.pop("order", "none"))
    texts = CENTER.fullmatch(center) and CODE.fullmatch(code) and ORDER.fullmatch(order)
    if not (texts and _is_duration(seconds) and _is_count(number)):
        raise WireError("A reply's status has no well-formed center, code, order, round and seconds.")
    unknown = sorted(set(status) - set(STATUS_COUNTS))
    if unknown or not all(_is_count(value) for value in status.values()):
        raise WireError(
            f"A reply's status may hold the counts {', '.join(STATUS_COUNTS)} only; it also holds "
            f"{one_line(str(unknown))}."
        )
    return Reply(center, code, counts=status, seconds=seconds, round=number, order=order)


def check_declared(
    reply: Reply,
    *,
    state_like: State,
    sum_shapes: Mapping[str, tuple[int, ...]],
    extra_like: State | None = None,
    counts: Collection[str] = STATUS_COUNTS,
) -> None:
    """Refuse a reply with arrays, sums or counts that were not declared. Parts may be absent (a center without PET).

    Args:
        counts: those of the action, of `COUNTS_OF`.
    """
    got, declared = with_extra(reply.state, reply.extra), with_extra(state_like, extra_like or {})
    problems = _undeclared(
        "array", {k: tuple(v.shape) for k, v in got.items()}, {k: tuple(v.shape) for k, v in declared.items()}
    )
    problems += _undeclared("sum", {k: np.shape(v) for k, v in reply.sums.items()}, sum_shapes)
    problems += [f"count '{name}'" for name in reply.counts if name not in counts]
    problems += [
        f"array '{name}' is {tensor.dtype}, declared {declared[name].dtype}"
        for name, tensor in got.items()
        if name in declared and tensor.dtype != declared[name].dtype
    ]
    if problems:
        raise WireError(one_line(f"A reply carries what the step does not declare: {'; '.join(sorted(problems))}."))


def content_bytes(content: RecordDict) -> int:
    """Payload bytes of a message: every array with its header, every string and number; no transport framing."""
    arrays = sum(len(a.data) + len(n) for r in content.array_records.values() for n, a in r.items())
    configs = sum(len(str(k)) + len(str(v)) for r in content.config_records.values() for k, v in r.items())
    return arrays + configs


def with_extra(state: State, extra: State) -> State:
    """One record's names: what a rule asks for in addition stands behind a mark that no part's name may have."""
    return {**state, **{EXTRA + name: tensor for name, tensor in extra.items()}} if extra else state


def apart(arrays: State) -> tuple[State, State]:
    """The state, and what a rule asks for beside it."""
    extra = {name.removeprefix(EXTRA): tensor for name, tensor in arrays.items() if name.startswith(EXTRA)}
    return {name: tensor for name, tensor in arrays.items() if not name.startswith(EXTRA)}, extra


def _pack_sums(sums: Mapping[str, np.ndarray]) -> ArrayRecord:
    return ArrayRecord({name: encoded(packed(name, np.asarray(sums[name], np.float64))) for name in sorted(sums)})


def _undeclared(what: str, got: Mapping[str, tuple], declared: Mapping[str, tuple]) -> list[str]:
    return [
        f"{what} '{name}' of shape {shape}"
        for name, shape in got.items()
        if name not in declared or tuple(declared[name]) != tuple(shape)
    ]


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_duration(value: object) -> bool:
    return isinstance(value, float) and math.isfinite(value) and value >= 0
