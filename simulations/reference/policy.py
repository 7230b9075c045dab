"""docs/hospital/policy.md: every field of a hospital's policy, and what a default one says of itself."""

from __future__ import annotations

from itertools import groupby

from client.policy import Policy
from client.policy.explain import HEADS, explained
from client.policy.policy import UNSAID
from simulations.reference.markdown import generated, table
from simulations.reference.source import ROOT, fields

FIELDS = {  # field -> the code of a refusal, when it is given
    "tasks": ("declined.task", "another kind of task; an empty list allows every kind"),
    "federations": (
        "declined.federation",
        "another aggregation rule or local method (ditto, local, proximal); empty: every one but `scaffold`, whose "
        "first round sends a mean raw gradient, `averaged_moments`, which sends means of gradients and of their "
        "squares, and `inflora` and `projection`, which send second moments of what layers see",
    ),
    "parts": (
        "declined.part",
        "another kind of adapter part; empty: every kind but `full`, `patch_embed` and `resolution`, which put tensors "
        "of the frozen model or first layers into the coordinator's hands",
    ),
    "sums": ("declined.sums", "another kind of sums, of labels, grid, moments, gram, newton, thresholds, scores, "
             "curves; labels that are not allowed are left out of an answer instead"),
    "bases": ("declined.base", "a frozen model whose digest is not listed (doctor prints yours)"),
    "initialisations": (
        "declined.initialisation",
        "the first state of a step that this vault has not seen is not listed, whatever round it is said to be of; a "
        "finished step that would be merged into the frozen model counts as one",
    ),
    "reach": (
        "declined.initialisation",
        "a later state lies further from this center's own last one than this many times its own last update, for each "
        "round that it missed (at most ten); null: never",
    ),
    "minimum_cases": (
        "declined.cases",
        "fewer training cases than this, or fewer expected in a round's draws of DP-SGD without a ceiling",
    ),
    "minimum_cell": (
        "",
        "results and cells of fewer cases do not leave; patients are counted in whole steps of this number, upwards",
    ),
    "test_folds": ("declined.split", "another fold of the center's own split would test; `all` for cross-validation"),
    "minimum_batch": ("declined.batch", "the step trains on smaller batches, or draws fewer on average under DP-SGD"),
    "maximum_epochs": ("declined.epochs", "the step asks for more passes in a round"),
    "maximum_rounds": ("declined.rounds", "the step is longer"),
    "maximum_questions": (
        "declined.questions",
        "exact fits have asked for sums at this many points about the same variable, feature or target, over every "
        "step and run: gradients and Hessians beyond them are not told",
    ),
    "maximum_seconds": ("deadline", "a message takes longer: its process is ended, the node takes the next one"),
    "maximum_memory_gb": (
        "memory",
        "a message holds more resident memory, its process is ended; null: nine tenths of what the machine or its "
        "control group has",
    ),
    "maximum_vault_gb": (
        "declined.room",
        "a step, or a finished stage, is new to a vault whose states of earlier ones take this much; what was begun "
        "goes on",
    ),
    "require_privacy": ("declined.privacy", "the step learns from patients without noise; a budget asks for it, too"),
    "privacy": (
        "declined.budget",
        "`epsilon` at `delta` is the most of a patient's privacy that is spent over every step, run and restart, and a "
        "round that would pass it is not begun; a step without noise, or with noise of a known seed, gets "
        "`declined.privacy`; without a ceiling "
        f"noised sums, which leave few patients to their noise alone, stay within epsilon {UNSAID.epsilon:g} at delta "
        f"{UNSAID.delta:g}; with `strict: true` "
        "whatever carries no noise (scores, statistics) gets `declined.noise`",
    ),
    "require_secure_aggregation": ("declined.secure_aggregation", "steps without `federation.secure_aggregation`"),
    "quiet_hours": ("declined.quiet_hours", 'local times such as `["08:00-18:00"]`'),
}  # fmt: skip
INTRODUCTION = """\
`policy:` in `center.yaml` is checked on site before any data is opened, whatever the coordinator asks. What yours
says, in sentences:

*Needs your center.yaml.*

```
python -m client policy --explain center.yaml
```

A refusal is a normal reply: the code travels, the sentence stays in the center's log and names the field. Every code:
[status codes](../reference/codes.md). In a list, `all` allows every kind, also those that an empty list refuses.

"""
SPLIT = """
## Who trains and who tests is yours

Each patient gets a place in the split at first sight, for good: which fold, and beside which test the patient
validates. The vault keeps it by a keyed hash of the ID (`cohort.jsonl`). Nobody changes sides afterwards, by new
patients, by an erasure, or because a step needs other records. New patients go to the emptiest fold among patients
with the same outcome. A small center may have nobody to validate.

- `split: {seed: 0, folds: 5, validation: 0.2}` in `center.yaml` fixes it, as agreed with the coordinator
  (`data.split`). Without it the first order that your center accepts does. An order that names another split gets
  `declined.split`, and your log says why.
- `policy.test_folds: [0]` lets fold 0 test and no other. **A cross-validated study needs `all`:** then every patient
  trains some of its models and tests the others. Simulated centers have `all`.
- `python -m client split --center center.yaml` says what is fixed and since when. `--release` gives it up, so that
  the next order fixes another: patients who have trained may test then, and earlier adapters must not be judged at
  your center again.
- A damaged or missing `cohort.jsonl` stops every order, with the remedy. Nobody is ever dealt anew unasked.
"""
RULES = """
## What no hospital does, whatever its policy

The rules that the server checks before a run hold on site for every order, with ceilings on sizes, ranks, bins,
classes, structures, views, epochs and time (`common/config/limits`); what breaks one is answered `config`. Numbers
are finite, names short, patterns are `*` and `?` only. `${...}` in a message is refused by name: nothing of this
machine's environment is looked up.

A message's process is ended when it takes too long or too much memory; where the node may make a control group (Linux
with a delegated tree), the kernel holds the memory, too. In a simulation the round's deadline ends a center's worker;
memory is not watched there, because one worker serves several centers.

## What a default hospital says

"""
END = """
`policy` guards against misconfiguration and against a coordinator that asks too much. It does not make an adapter
private: [threat model](../concepts/threat-model.md). What can leave at all: [what
leaves](../reference/what-leaves.md).
"""


def policy_page() -> str:
    """The page."""
    defaults = {field.name: field.default for field in fields(ROOT / "client/policy/policy.py", "Policy")}
    rows = [
        (f"`{name}`", f"`{defaults[name]}`", f"`{code}`" if code else "nothing", when)
        for name, (code, when) in FIELDS.items()
    ]
    head = generated("Policy: what your hospital refuses", "client/policy") + INTRODUCTION
    return head + table(("field", "default", "answers with", "when"), rows) + SPLIT + RULES + _default() + END


def _default() -> str:
    text = ""
    for about, sentences in groupby(explained(Policy()), key=lambda one: one.about):
        text += f"{HEADS[about]}\n\n"
        text += "".join(f"- {one.says} (`{one.decided_by}`);\n" for one in sentences) + "\n"
    return text.rstrip("\n") + "\n"
