"""docs/hospital/ethics.md: for an ethics board, what leaves, with which protection, and what none covers."""

from __future__ import annotations

from client.privacy.unnoised import KINDS
from common.config.privacy import DpSgd
from simulations.reference.leaving import actions
from simulations.reference.markdown import generated, table

ASKED = {  # kind of `KINDS` -> when it leaves
    "counts": "before each step, and with each answer",
    "curves": "once a step is learned",
    "gram": "an exact fit by ridge",
    "grid": "before a prognosis step whose grid follows the events",
    "keepsakes": "at the end of a step whose methods keep sums, such as EWC",
    "labels": "before a step",
    "losses": "each round, of a step whose reply tells more than its noised update",
    "moments": "before an exact fit",
    "newton": "each question of an exact fit",
    "paired": "where a coordinator compares two models on the same test patients",
    "scores": "after each step, for every task learned so far, unless the step has `privacy.score_epsilon`",
    "statistics": "when a person sends the file of `python -m client statistics`, or a step of that kind asks",
    "thresholds": "after an exact segmentation",
    "update": "each round of a step without `privacy`",
    "validation": "each validated round and each tuned setting, unless the step has `privacy.score_epsilon`",
}
FIRST = """\
**Released without noise first.** A step with `privacy=dp_sgd` puts noise on its updates, one with
`privacy=noised_sums` on the sums of its exact fit, either on its scores where it has `privacy.score_epsilon`, and none
on anything else. Each of the following leaves as it is, guarded by [minimums](policy.md) alone; no epsilon covers it.
Where a privacy account is kept, each such reply is a line of it, and `python -m client budget` prints their numbers
above every epsilon. With `policy.privacy.strict: true` they are refused (`declined.noise`), or counts are told as the
step's public bound.

"""
PROTECTED = """
## What is protected, and with which epsilon

The unit is the patient: whether one patient's images and record were in the training at all changes the odds of
whatever the coordinator may conclude from all noised updates by at most a factor of e^epsilon, but for a probability of
about delta. All crops of a patient count as one. It holds for the cohort's whole account together: every step, task,
run and restart, against a coordinator that knows everything else, and for as long as the vault lives.

"""
WORTH = """
What the numbers are worth, as orientation and no promise: studies of chest X-rays with noise report epsilon 6 to 8;
much larger ones still make the reconstruction of an image hard, but do not hide who took part. A board decides; the
software only counts. The account is composed by two accountants (Renyi, and privacy random variables), written to disk
before noise is drawn, and hash-chained; noise comes from a secret of the operating system that never leaves the vault.
Tests with seeded noise stamp the account "not private" for good.

## Data flow, for an impact assessment

"""
ASKED_BY_ACTION = """
What each kind of question is answered with, from the code:

"""
USE = """
Each array, sum and count by name: [what leaves](../reference/what-leaves.md). Nothing crosses a border but to the
coordinator's one address; the node opens no port ([network](network.md)).

## Intended use

Research on frozen models and small adapters across hospitals: segmentation, prognosis and classification of head and
neck tumors and what is declared beside them. **No medical device:** no output may guide the care of a patient. It is
meant for hospitals that trust each other not to attack, and do not need to trust the coordinator with patients' data.
Against whom it does not protect: [threat model](../concepts/threat-model.md).

## What an erasure undoes, and what it does not

*Needs a center of yours.*

```
python -m client erase --center center.yaml --patient MDA-003
```

"""
AFTER = """
To take the patient out of a model, the model is made again without: the coordinator runs the same curriculum under
another name once the patient is erased. Of exact fits a whole center can be taken out without its help:

*Needs a federation, or a finished run of yours.*

```
python -m server run federation curriculum=quickstart name=again
python -m server withdraw federation/runs/first --center CHUM
```

A run again is charged again: with noise, it costs the remaining patients as much as the first.

## What a board can check itself

*Needs a center of yours.*

```
python -m client policy --explain center.yaml
python -m client budget --center center.yaml --curriculum quickstart --figure budget.svg
python -m client audit --center center.yaml
python -m client doctor --center center.yaml
```

The first says in sentences what can be asked, the second what is spent and what is planned, the third what has left,
the fourth whether anything is wrong.

## What no number here covers

- The frozen model, and whatever it was trained on before.
- Test and validation scores without `privacy.score_epsilon`, per-case tables and overlays that the hospital itself
  publishes.
- A whole vault that is put back to an earlier state: what was spent since is forgotten. Back it up with the machine.
- A patient who is at two hospitals: each has its own account, and the epsilons add.
- Whether a hospital declines: a code may tell that it has too few patients.
"""


NUMBERS = (
    (
        "`policy.privacy.epsilon`, `.delta`",
        "the hospital's, in `center.yaml`",
        "the ceiling of the whole account; a round that would pass it is not begun (`declined.budget`)",
    ),
    (
        f"`privacy.epsilon` ({DpSgd().epsilon:g} by default), `privacy.delta`",
        "the coordinator's, of one step",
        "how much noise the step draws; null is one tenth of one over the public bound of patients",
    ),
    (
        "`privacy.score_epsilon`, `privacy.score_answers`",
        "the coordinator's, of one step",
        "how much noise an answer with scores has, and how many there are; 0: no noise, and scores stand above",
    ),
    (
        "`privacy.cohort`, `privacy.batch`",
        "public constants of the step",
        "sampling rate and divisor: never computed from the true number of patients",
    ),
)
FLOW = (
    (
        "images, labels, records",
        "stay at the hospital",
        "training and testing on site",
        "the hospital's own folder; prepared copies in `cache`, which can be deleted",
        "yes",
    ),
    (
        "the vault: split, erased patients, account, secret of the noise",
        "stays at the hospital",
        "nobody changes sides, nothing is counted twice",
        "until the hospital deletes it; patients as keyed hashes, and codes where `prepare` made them",
        "yes, with its key",
    ),
    (
        "adapter updates",
        "hospital to coordinator, each round",
        "the shared adapter",
        "the run's folder at the coordinator",
        "without noise possibly; with `dp_sgd` within the account's epsilon",
    ),
    (
        "sums over at least `minimum_cell` patients",
        "hospital to coordinator",
        "scores, exact fits, grids",
        "the coordinator's ledger",
        "of a few directly: no; from many together: possibly",
    ),
    (
        "counts of patients",
        "hospital to coordinator",
        "who can take which step",
        "the coordinator's ledger",
        "told as the minimum when fewer",
    ),
    (
        "status codes",
        "hospital to coordinator",
        "what went wrong",
        "the coordinator's ledger",
        "no",
    ),
    (
        "the finished adapter",
        "coordinator to every hospital, and to whom it is exported",
        "use on new patients",
        "wherever it was copied: it cannot be called back",
        "as the updates it was made of",
    ),
    (
        "the record of what left",
        "stays at the hospital",
        "`python -m client audit`",
        "the vault",
        "no names, sizes and digests only",
    ),
)
ERASURE = (
    (
        "the patient is in no later step, no memory that a method rehearses, no cache and no table of codes",
        "weights that have left: adapters of earlier steps still hold what the patient taught them",
    ),
    (
        "exact sums that are asked later (after enough other changes, `declined.difference` until then)",
        "sums that have left; they stand in the coordinator's ledger",
    ),
    (
        "",
        "the account: what was spent stays spent, for the other patients too, and the erased patient's "
        "epsilon is no smaller",
    ),
    (
        "",
        "exported adapters at other hospitals",
    ),
)


def ethics_page() -> str:
    """The page."""
    left = [(f"`{name}`", says, ASKED[name]) for name, says in KINDS.items()]
    text = generated("For an ethics board", "client/privacy, the policy and what a step declares") + FIRST
    text += table(("what", "it tells", "when it leaves"), left)
    text += PROTECTED + table(("number", "whose", "what it means"), NUMBERS)
    text += WORTH + table(("what", "from where to where", "why", "kept", "tells of a person"), FLOW)
    text += ASKED_BY_ACTION + table(("asked", "arrays", "sums", "counts", "guarded by"), actions())
    return text + USE + table(("undone", "not undone"), ERASURE) + AFTER
