"""Write center.yaml, with every key explained, and draw this node's key pair.

Asks for what no flag gives; with --yes it asks nothing and takes the defaults. The private key never leaves this
machine; what to send to the coordinator is printed at the end.
"""

from __future__ import annotations

import argparse
import json
import re
from dataclasses import dataclass
from pathlib import Path

from client.node.keys import fingerprint, make_keys
from common.data.batch import MODALITY, RECORD, volumes_of
from common.errors import ConfigError

EXAMPLE = "python -m client init --code CHUM --root /data/hecktor --server fedgraft.example.org:443"
CODE = re.compile(r"[A-Z][A-Z0-9]{1,15}")


@dataclass(frozen=True)
class Question:
    """One thing to ask for."""

    name: str
    text: str
    default: str = ""
    choices: tuple[str, ...] = ()


QUESTIONS = (
    Question("code", "This center's code: the prefix of its patients' codes, as CHUM in CHUM-001"),
    Question("root", "Folder with the patients' images and tables", "data"),
    Question("layout", "Layout of the folder: auto, hecktor, nnunet, brats, or a YAML file that declares it", "auto"),
    Question("modalities", "What steps may see, of CT, PET, other images in capitals (MR) and EHR", "CT,PET,EHR"),
    Question("device", "Device that trains", "cpu", ("cpu", "cuda")),
    Question("server", "The coordinator's address as host:port; empty for a center of a simulation"),
    Question("server_certificate", "File with the coordinator's certificate authority (PEM)", "keys/ca.crt"),
    Question("cache", "Folder for prepared volumes; it can be deleted at any time", ".cache"),
    Question("vault", "Folder for what must survive; back it up", ".vault"),
    Question(
        "split", "Split agreed with the coordinator, as seed,folds,validation (0,5,0.2); empty: the first order's"
    ),
    Question("minimum_cases", "Fewest training cases with which this center trains", "5"),
    Question("minimum_cell", "Fewest cases of which results leave", "5"),
)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, default=Path("center.yaml"), help="file to write (center.yaml)")
    for question in QUESTIONS:
        parser.add_argument(
            f"--{question.name.replace('_', '-')}",
            choices=question.choices or None,
            help=question.text[0].lower() + question.text[1:],
        )
    parser.add_argument("--key", type=Path, default=None, help="the node's private key (keys/CODE); made if absent")
    parser.add_argument("--yes", action="store_true", help="ask nothing: flags and defaults only")
    parser.add_argument("--force", action="store_true", help="replace an existing file (never an existing key)")


def run(arguments: argparse.Namespace) -> int:
    """Ask, write, and say what to send."""
    if arguments.out.exists() and not arguments.force:
        raise ConfigError(f"{arguments.out} exists; name another file with --out, or replace it with --force.")
    answers = {question.name: _answer(question, arguments) for question in QUESTIONS}
    _check(answers)
    key = arguments.key or arguments.out.parent / "keys" / answers["code"]
    write_center(arguments.out, {**answers, "key": str(key)})
    Path(answers["vault"]).expanduser().mkdir(parents=True, exist_ok=True, mode=0o700)  # before anything else makes it
    public = make_keys(key, comment=f"fedgraft-{answers['code']}")
    _say(arguments.out, key, public, answers)
    return 0


def _answer(question: Question, arguments: argparse.Namespace) -> str:
    given = getattr(arguments, question.name)
    if given is not None:
        return str(given)
    if arguments.yes:
        return question.default
    from rich.prompt import Prompt

    return Prompt.ask(question.text, default=question.default, choices=list(question.choices) or None).strip()


def _check(answers: dict[str, str]) -> None:
    """Raise ConfigError with everything that is wrong."""
    problems = []
    if not CODE.fullmatch(answers["code"]):
        problems.append(f"code is '{answers['code']}'; write 2 to 16 capital letters and digits, a letter first.")
    server = answers["server"]
    if server and not re.fullmatch(r"[\w.\-\[\]:]+:\d{1,5}", server):
        problems.append(f"server is '{server}'; write host:port without https://, as in fedgraft.example.org:443.")
    names = _modalities(answers["modalities"])
    if not all(map(MODALITY.fullmatch, names)) or RECORD in names or not volumes_of(names):
        problems.append(
            f"modalities is '{answers['modalities']}'; write the images that steps may see in capitals (CT, PET, MR), "
            "and EHR where they may see clinical records."
        )
    from client.data.layouts import AUTO, EDITIONS, READERS

    layouts = (AUTO, *READERS, *EDITIONS)
    if answers["layout"] not in layouts and not answers["layout"].endswith((".yaml", ".yml")):
        problems.append(f"layout is '{answers['layout']}'; write {', '.join(layouts)} or a .yaml file.")
    if answers["split"] and _split(answers["split"]) is None:
        problems.append(
            f"split is '{answers['split']}'; write the seed, the number of folds (2 or more) and the validation share "
            "(from 0 to below 1), as in 0,5,0.2, or nothing."
        )
    for name in ("minimum_cases", "minimum_cell"):
        if not answers[name].isdigit() or int(answers[name]) < 1:
            problems.append(f"{name} is '{answers[name]}'; write a whole number from 1.")
    if problems:
        raise ConfigError(" ".join(problems))


def _modalities(text: str) -> list[str]:
    return [word.strip().upper() for word in text.split(",") if word.strip()]


def _split(text: str) -> str | None:
    """The answer as YAML; None where it is no split."""
    match = re.fullmatch(r"\s*(\d+)\s*,\s*(\d+)\s*,\s*(0|0?\.\d+)\s*", text)
    if match is None or int(match.group(2)) < 2:
        return None
    return f"{{seed: {match.group(1)}, folds: {match.group(2)}, validation: {float(match.group(3))}}}"


def write_center(path: Path, answers: dict[str, str]) -> None:
    """Write a center's file from answers by name, and read it back."""
    from client.center.config import read_config
    from common.files import write_bytes

    values = {**answers, "modalities": ", ".join(_modalities(answers["modalities"]))}
    for name in ("root", "cache", "vault", "key", "server_certificate"):
        values[name] = str(Path(values[name]).expanduser().resolve()) if values[name] else ""
    values["split"] = (_split(answers["split"]) if answers.get("split") else None) or "null"
    if not answers["server"]:
        values["server_certificate"] = ""
    for name in ("root", "cache", "vault", "key", "server_certificate", "layout", "server"):
        values[name] = json.dumps(values[name], ensure_ascii=False)  # a JSON string is a YAML string
    write_bytes(path, TEMPLATE.format_map(values).encode())
    read_config(path)


def _say(path: Path, key: Path, public: str, answers: dict[str, str]) -> None:
    print(f"wrote {path} and {key}.pub; the private key {key} stays here and is in no backup that leaves the hospital")
    print("\nSend to the coordinator, and read the fingerprint to them over the telephone:")
    print(f"  code         {answers['code']}")
    print(f"  public key   {public}")
    print(f"  fingerprint  {fingerprint(public)}")
    if answers["server"]:
        print(f"\nAsk them for their certificate authority and put it at {answers['server_certificate']}.")
    print(f"Next: python -m client doctor --center {path}")


TEMPLATE = """\
# This hospital's own settings; the coordinator never sees this file. Check it with: python -m client doctor

# Who this center is. Patients' codes begin with it (CHUM-001), and results name it.
code: {code}

# ---- data ---------------------------------------------------------------------------------------------------------
# Folder with images and tables; `python -m client prepare` makes one from DICOM.
root: {root}
# How the folder is laid out: hecktor (or one edition, 2021, 2022, 2025, 2026, so that doctor names stray files),
# nnunet, brats, or the path of a YAML that declares it (also found as layout.yaml in the folder). auto finds out.
layout: {layout}
# This hospital's own table mapping, as in configs/mapping; "" reads the tables of every HECKTOR edition.
mapping: ""
# Own code beside this checkout's (a task, a reader), by file; the coordinator's must be the same, byte for byte.
plugins: []
# What steps may see of this center: images by name (CT, PET, MR, T1, FLAIR), and EHR for clinical records.
modalities: [{modalities}]
# Who trains, validates and tests here: fixed once, kept in the vault, and refused otherwise. Agree on it with the
# coordinator (data.split), as in {{seed: 0, folds: 5, validation: 0.2}}; null: the first accepted order fixes it.
split: {split}

# ---- this machine -------------------------------------------------------------------------------------------------
# This center's own files of frozen models that are not shipped, by kind, as in {{ct_clip: /models/CT-CLIP_v2.pt}}.
weights: {{}}
# This center's own CXR-BERT folder; "" where no step reads reports with the released text side.
text_folder: ""
# cpu or cuda. A GPU needs about as much memory as `python -m client doctor --curriculum NAME` measures.
device: {device}
# Threads of one training process. Results repeat bit for bit only with the same number.
threads: 1
# bfloat16 arithmetic on a GPU: faster, and repeatable to rounding only.
mixed_precision: false
# Only algorithms whose results repeat; on a CPU. PyTorch has none for some GPU operations.
deterministic: true
# At most this much of the GPU, in GB; null takes what there is.
gpu_memory_gb: null
# Prepared volumes. Holds images of patients; can be deleted at any time.
cache: {cache}
# At most so many GB of prepared volumes; those that were not read for longest are dropped first.
cache_gb: 200
# What must survive: the record of what left, erased patients, the table of codes. Back it up; show it to nobody.
vault: {vault}
# After how many days `python -m client tidy --delete` removes prepared volumes that no order has read, lines of the
# node's logs, and what steps left in the vault that nothing was written for since. null: never by age. The accounts of
# privacy and of what left, the split and the erased patients stay for good.
retention: {{cache_days: null, log_days: null, step_days: null}}

# ---- the federation -----------------------------------------------------------------------------------------------
# The coordinator, as host:port. The node connects outwards to it; nothing connects in. Empty: a simulation's center.
server: {server}
# The authority that signed the coordinator's certificate (PEM); they send it to you.
server_certificate: {server_certificate}
# This node's private key; its .pub is what the coordinator enrols.
key: {key}
# Folder with the public keys of the hospitals that this one sums securely with, as CODE.pub: from each hospital itself,
# its fingerprint compared over the telephone, never from the coordinator. "" takes part in no secure sum.
partners: ""
# Where the running node answers `python -m client health`; this machine only.
health: "127.0.0.1:9097"

# ---- the hospital's floor: what this center will not do, whatever the coordinator asks -----------------------------
policy:
  # `python -m client policy --explain` says in sentences what a coordinator can and cannot ask with these.
  # Kinds of tasks that may run: segmentation, prognosis, classification. Empty: all.
  tasks: []
  # Aggregation rules and local methods that may run: mean, fedadam, newton, ditto, proximal and so on. Empty: all but
  # scaffold, averaged_moments, inflora and projection, which send gradients or moments beside what was trained.
  federations: []
  # Kinds of adapter parts that may be trained: lora, mlp, fusion, decoder, skip, linear and so on. Empty: all but full,
  # patch_embed and resolution, which put first layers or tensors of the frozen model in the coordinator's hands; a
  # step that learns PET beside CT needs patch_embed.
  parts: []
  # Kinds of sums that may be asked: labels, grid (event times), moments, gram, newton, thresholds, scores, curves.
  # Empty: all.
  sums: []
  # Digests of frozen models that may be used; doctor prints the digest of yours. Empty: any that is installed here.
  bases: []
  # Digests of adapter states from which a step may start here, whatever its round is said to be. Empty: any.
  initialisations: []
  # Later states lie at most this many times as far from this center's last own state as its own last update was long;
  # null: anywhere.
  reach: 30.0
  # With fewer training cases than this the center does not train: its update could show them.
  minimum_cases: {minimum_cases}
  # Results of fewer cases than this do not leave.
  minimum_cell: {minimum_cell}
  # Steps with fewer cases in a batch are not trained.
  minimum_batch: 2
  # Most passes over the training cases in one round, and most rounds of a step.
  maximum_epochs: 50
  maximum_rounds: 1000
  # Most points at which exact fits are answered about any one variable, feature or target, over every step and run.
  maximum_questions: 20000
  # Which folds of the split may be the test, counted from 0; others are declined, because who trained would test.
  # A cross-validated study needs all.
  test_folds: [0]
  # For one message: wall seconds, and resident memory in GB (null: nine tenths of what this machine or its control
  # group has). Beyond either its process is ended, the coordinator gets a code, the node takes the next message.
  maximum_seconds: 7200.0
  maximum_memory_gb: null
  # Most of the vault that states of earlier steps may take, in GB; beyond it no new step is begun. null: any.
  maximum_vault_gb: 100.0
  # The most of a patient's privacy that is spent here, over every step, run and restart together: epsilon at delta,
  # such as 8 at 0.001 for some hundred patients. Then steps learn with noise only. null: no ceiling, but 10 at 0.001 of
  # exact sums whose noise stands in for the minimums.
  # strict: true lets nothing out without noise: no scores, no statistics.
  privacy: {{epsilon: null, delta: null, strict: false}}
  # true: steps learn with noise only, also without a ceiling here.
  require_privacy: false
  # true: updates, losses and scores leave as secure sums with other hospitals only (federation.secure_aggregation);
  # needs key and partners. Other steps are declined.
  require_secure_aggregation: false
  # Local times in which this machine is left alone, as in ["08:00-18:00"].
  quiet_hours: []
"""
