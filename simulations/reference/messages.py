"""docs/reference/wire.md and codes.md: what an order and a reply hold, the sums of each task, the status codes."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import Any

from common.config.task import ClassificationTask, GroundingTask, MaskedTask, PrognosisTask, SegmentationTask
from common.protocol.wire import FIT_SUMS, STATUS_COUNTS
from common.tasks import build_task
from server.centers.quarantine import GUARDED
from simulations.reference.markdown import generated, table
from simulations.reference.source import PACKAGES, ROOT, fields, modules

MESSAGES = ROOT / "common/protocol/messages.py"
EXAMPLES: dict[str, Any] = {
    "classification, two or more labels": ClassificationTask(classes=["a", "b"]),
    "classification, one of several classes": ClassificationTask(
        classes=["a", "b"], form="multi_class", target="t_stage"
    ),
    "grounding": GroundingTask(),
    "masked": MaskedTask(),
    "prognosis": PrognosisTask(),
    "segmentation": SegmentationTask(),
}
CODES = {
    "adapter": "the adapter state does not belong to this step or frozen model",
    "backbone": "the frozen model's file does not fit, or is another one than agreed on",
    "bank": "an adapter in the bank is missing or damaged",
    "config": "a setting cannot be read, breaks a rule of the server's own, or is above a ceiling",
    "base_missing": "the vault lacks stages of the base that the order names; they are sent in order, once",
    "changed": "patients came or went during an exact fit: the answer is over others than the center's first one",
    "conflicting": "two replies of one center to one question",
    "counts": "more cases claimed than registered at enrolment",
    "data": "the center's files cannot be used; its own log names them",
    "deadline": "the message took longer than the policy allows; its process was ended",
    "declined.base": "the policy does not list this frozen model",
    "declined.base_mismatch": "the center's frozen model has another digest",
    "declined.batch": "the step trains on smaller batches than the policy allows",
    "declined.budget": "the round would spend more of the patients' privacy than the policy's ceiling",
    "declined.cases": "too few patients to train",
    "declined.code": "the bundle is not the code that this hospital reviewed, though it names the same release",
    "declined.difference": "an exact answer would differ from an earlier one by fewer patients than the minimum",
    "declined.epochs": "the step asks for more passes in a round than the policy allows",
    "declined.federation": "the policy does not allow this aggregation rule or local method",
    "declined.initialisation": "the policy does not list the state that the step starts from, or a later state jumped",
    "declined.masking": "a secure sum that this center does not take part in, or an answer that would leave without it",
    "declined.noise": "the policy lets nothing leave without noise, and this answer carries none",
    "declined.part": "the policy does not allow this kind of adapter part",
    "declined.path": "a question of an exact fit out of its order, or with another mean and scale than before",
    "declined.point": "parameters of an exact fit that are not finite, or beyond the bounds",
    "declined.privacy": "the policy asks for noise, and the step learns without it or draws it from a known seed",
    "declined.questions": "an exact fit has asked as often as it may",
    "declined.quiet_hours": "no order is answered at this hour",
    "declined.release": "the coordinator runs another release than this hospital reviewed; both install the same one",
    "declined.room": "states of earlier steps take as much of the vault as the policy allows",
    "declined.rounds": "the step is longer than the policy allows",
    "declined.secure_aggregation": "the policy asks for secure sums, and the step has none",
    "declined.split": "the order's split is not this hospital's own, or the policy does not let this fold test",
    "declined.sums": "the policy does not allow this kind of sums",
    "declined.task": "the policy does not allow this kind of task",
    "declined.weight": "at these parameters too few patients would weigh in the sums",
    "declined.weights": "the frozen model is no file of this hospital's",
    "damaged": "a file of the center's is not what was written; its own log names it",
    "disk": "the center's disk is full or read-only; its own log names the file",
    "error": "another problem that its own log explains",
    "impossible": "a sum is larger, smaller or otherwise other than any patients could make it",
    "incomplete": "an update without whole parts, sums or counts",
    "internal": "a fault in the program; the center's own log has it",
    "ledger": "a record whose chain of hashes does not hold",
    "link": "the coordinator's SuperLink cannot be reached",
    "keepsake": "a method goes on from what earlier steps kept, and it is missing or has changed within the step",
    "malformed": "no reply at all by its form",
    "memory": "the message took more memory than the policy allows; its process was ended",
    "no_reply": "nothing came before the deadline",
    "node": "the hospital's node cannot start",
    "norm": "an update too long beside the others'",
    "not_finite": "numbers that are not finite",
    "ok": "done",
    "process_died": "the worker process died twice, for want of memory or by force",
    "reference": "the center lacks the state that a difference refers to; it is sent whole next time",
    "replayed": "a copy of an earlier update",
    "round": "too few usable replies: the round is void",
    "round.too_few": "fewer updates than a robust rule needs",
    "stale": "an answer to another round",
    "stages": "earlier self-supervised stages cannot be rehearsed where training has no center's cases",
    "teacher": "the model that a method is taught by is missing or another one than before",
    "undeclared": "arrays or sums that the step does not declare",
    "unknown": "a name that this release does not know",
    "unrecorded": "the record of what leaves cannot be continued; nothing left",
    "vault": "the vault lacks or cannot read what it must keep between rounds",
    "vault.ahead": "the vault has seen a later round than the coordinator's ledger: that was rolled back",
    "vault.memory": "the cases that a method rehearses are not in the vault or not as they were",
    "vault.privacy": "the account of what was spent of the patients' privacy is damaged, or the clock was set back",
    "wire": "a message that carries what it must not, or lacks what it must",
    "wrong_center": "a reply in another center's name",
}


def wire_page() -> str:
    """The page."""
    text = generated("What crosses the network", "common/protocol and the tasks")
    text += (
        "The server asks with an order; a center answers with a reply. What a reply may hold is declared by the\n"
        "step, and checked twice: before it leaves the hospital, and before the server looks at it.\n\n"
    )
    text += "## An order\n\n" + _fields("Order") + "\n## A reply\n\n" + _fields("Reply")
    text += "\nThe counts of a reply are " + ", ".join(f"`{name}`" for name in STATUS_COUNTS) + ".\n"
    text += "\n## Sums\n\nEvery training reply: " + ", ".join(f"`{name}`" for name in FIT_SUMS) + ".\n\n"
    text += table(("task", "sums of scores", "for curves, once a step is learned", "of labels, at enrolment"), _tasks())
    return text


def codes_page() -> str:
    """The page."""
    text = generated(
        "Status codes", "CODES in simulations/reference/messages.py, which a test compares with the sources"
    )
    text += "A code is all that leaves a hospital when something is wrong; the sentence stays in its own log.\n\n"
    return text + table(("code", "says"), [(f"`{code}`", says) for code, says in CODES.items()])


def given_codes() -> set[str]:
    """Codes that the sources give: of exceptions, of refusals, of guards."""
    found = set(GUARDED)
    for package in PACKAGES[:3]:
        for path in modules(package):
            text = path.read_text()
            found |= set(re.findall(r'"(declined\.[a-z_]+)"', text)) | set(_class_codes(ast.parse(text)))
    return found


def _class_codes(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            yield from re.findall(r"^code = '(.+)'$", "\n".join(map(ast.unparse, node.body)), re.M)


def _fields(name: str) -> str:
    rows = [
        (f"`{f.name}`", f"`{f.type}`", f"`{f.default}`" if f.default else "", f.comment) for f in fields(MESSAGES, name)
    ]
    return table(("field", "type", "default", "meaning"), rows)


def _tasks() -> Iterator[tuple[str, str, str, str]]:
    for label, spec in EXAMPLES.items():
        task = build_task(spec)
        shapes = (task.sum_shapes, task.curve_shapes, task.label_shapes)
        yield (label, *(", ".join(f"`{name}`" for name in sorted(own)) or "none" for own in shapes))  # type: ignore[misc]
