"""docs/reference/ledger.md and audit.md: the events of a run's ledger and of a hospital's record of what left."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from simulations.reference.markdown import generated, table
from simulations.reference.source import ROOT, calls

MEANING = {
    "base_grown": "a finished step was merged into the frozen model: of what the new base is made, and where",
    "center_joined": "a hospital came to a step that was under way",
    "center_released": "a person let a suspended center take part again",
    "center_withdrawn": "a center's share was taken out of what was fitted from sums",
    "compared": "two models on the same test patients: both scores and the difference at every center and pooled",
    "grid_chosen": "a survival step's cut points, from the summed histogram of event times",
    "harmonized": "a line for each frozen feature of each center, by which features are brought together over centers",
    "keepsakes_refused": "too few centers told what a step's methods keep; the same command asks again",
    "keepsakes_stored": "what a step's methods keep for later steps, by kind and digest, from its centers' sums",
    "newton_settled": "an exact fit ended: how many questions it took, and whether it settled",
    "newton_lost": "centers that stopped answering an exact fit, with each one's code; the fit goes on without them",
    "noised_fit": "an exact fit on noised sums ended: its questions, the largest eigenvalue of noise and of curvature",
    "newton_round": "one question of an exact fit was answered",
    "penalty_chosen": "the ridge of an exact fit, by the step's validation rule, and what every tried one was worth",
    "reply_rejected": "an answer to describe, sums or test scores that the guards stopped: a strike",
    "round_finished": "a round ended: who trained, the validation scores, bytes and seconds, who failed and why",
    "round_stopped": "a round was void for want of a disk, a vault or the newest ledger: the same command repeats it",
    "run_resumed": "the same command was started again",
    "run_started": "the first line: run, frozen model, release, machine, steps",
    "scored": "centers were asked for scores of one split; what it took in bytes",
    "thresholds_chosen": "each structure's cut of an exact segmentation's score, from the centers' summed histograms",
    "start_made": "the state that a step starts from, where its methods make it of its centers' sums",
    "start_scores": "the scores of a step before training",
    "start_validated": "what a step's start is worth by the rule that judges its rounds (round 0)",
    "statistics_told": "what each center told of its patients before any training, and how many comparisons differ",
    "step_failed": "no round of a step counted; nothing was committed",
    "step_finished": "a step is learned: the adapter's content hash, the round kept, every earlier step's scores",
    "step_refitted": "an exact step was fitted again without a center that left",
    "step_rescored": "the remaining centers scored a step that was fitted again; older scores of it are superseded",
    "step_started": "a step began: its centers, who refused and why, the size of the adapter",
    "verified": "a fresh process recomputed every step's outputs and compared the bits",
}
FORM = (
    "One JSON object a line. Every line has `format` (1), `kind`, `time` (UTC; nothing is computed from it),\n"
    "`previous` (the hash of the line before; 64 zeros in the first) and `hash` (SHA-256 of the line's other\n"
    "fields, as compact JSON with sorted keys).\n\n"
)


@cache
def ledger_events() -> dict[str, tuple[list[str], str]]:
    """Every kind of event that the coordinator writes: its fields as the source spells them, and the file that does."""
    found: dict[str, tuple[list[str], str]] = {}
    for path, function, call in calls("append"):
        kind = _literal(call)
        if kind is None or path.relative_to(ROOT).parts[0] != "server":
            continue
        keys = _keys(call.args[1], function, _functions(path))
        before = found.get(kind, ([], ""))[0]
        found[kind] = (list(dict.fromkeys([*before, *keys])), str(path.relative_to(ROOT)))
    return dict(sorted(found.items()))


def ledger_page() -> str:
    """The page."""
    rows = [
        (
            f"`{kind}`",
            MEANING.get(kind, "no meaning written yet"),
            ", ".join(f"`{key}`" for key in keys) or "see the file",
            f"`{file}`",
        )
        for kind, (keys, file) in ledger_events().items()
    ]
    head = generated("The ledger's events", "the calls that append to a ledger")
    head += "`runs/NAME/ledger.jsonl` says what happened; a killed run reads it and goes on from there.\n\n"
    head += FORM + "Fields that the source spells out at the call are listed; some are there in some runs only.\n\n"
    return head + table(("kind", "says", "fields", "written by"), rows)


def audit_page() -> str:
    """The page."""
    head = generated("The record of what left a hospital", "client/vault/outbox.py and common/protocol/handed.py")
    head += (
        "`sent.jsonl` in a hospital's vault has one line for every reply, written before the reply leaves: names,\n"
        "sizes and digests, never a value. `python -m client audit` verifies and prints it. A reply that cannot be\n"
        "recorded does not leave: the server gets the code `unrecorded`.\n\n"
    )
    asked = _dictionary_in("client/vault/outbox.py", "record_reply")
    carried = _dictionary_in("common/protocol/handed.py", "reply_facts")
    rows = [(f"`{key}`", AUDIT.get(key, "no meaning written yet"), "the order") for key in asked]
    rows += [(f"`{key}`", AUDIT.get(key, "no meaning written yet"), "the reply") for key in carried]
    return head + FORM + table(("field", "says", "of"), rows)


AUDIT = {
    "action": "train, evaluate, or the query that was asked",
    "array_bytes": "bytes of the tensors",
    "arrays": "number of tensors",
    "base": "digest of the frozen model that was asked for",
    "bytes": "bytes of the whole reply, without transport framing",
    "code": "`ok`, or why nothing was done ([codes](codes.md))",
    "counts": "numbers of cases, as the policy lets them be told",
    "digest": "SHA-256 over every name and value that left",
    "parts": "adapter parts that the tensors belong to",
    "round": "round of the step; 0 for questions before and after",
    "step": "name of the step",
    "subset": "which split was scored",
    "sums": "names of the sums",
    "task": "kind of the task",
}


def _dictionary_in(file: str, function: str) -> list[str]:
    """Keys of the first dictionary that a function spells out."""
    found = _functions(ROOT / file)[function]
    return [*_strings(next(node for node in ast.walk(found) if isinstance(node, ast.Dict)).keys)]


def _literal(call: ast.Call) -> str | None:
    first = call.args[0] if len(call.args) == 2 else None
    return first.value if isinstance(first, ast.Constant) and isinstance(first.value, str) else None


def _functions(path: Path) -> dict[str, ast.FunctionDef]:
    return {node.name: node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)}


def _keys(node: ast.AST | None, function: ast.FunctionDef, local: dict[str, ast.FunctionDef]) -> list[str]:
    """Keys of the dictionary that an expression makes, as far as this file spells them."""
    if isinstance(node, ast.Dict):
        parts = zip(node.keys, node.values, strict=True)
        return [k for key, value in parts for k in (_strings([key]) if key else _keys(value, function, local))]
    if isinstance(node, ast.Name):
        return [key for value in _assigned(node.id, function) for key in _keys(value, function, local)]
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in local:
        called = local[node.func.id]
        returned = [n.value for n in ast.walk(called) if isinstance(n, ast.Return)]
        return [key for value in returned for key in _keys(value, called, {})]
    return []


def _assigned(name: str, function: ast.FunctionDef) -> Iterator[ast.AST | None]:
    """What is assigned to a name in a function; ``name["key"] = …`` counts as a dictionary of that key."""
    for node in ast.walk(function):
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        for target in targets:
            if isinstance(target, ast.Name) and target.id == name:
                yield getattr(node, "value", None)
            elif isinstance(target, ast.Subscript) and isinstance(target.value, ast.Name) and target.value.id == name:
                yield ast.Dict(keys=[target.slice], values=[target.slice])


def _strings(nodes: Iterable[ast.AST | None]) -> list[str]:
    return [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]
