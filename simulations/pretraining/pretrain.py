"""Pretraining of the mini CT-CLIP: learn to read, contrast chest volumes with their reports, learn the codebook.

Everything that moves weights or codebook lives here; the frozen module in `common/backbones` only looks things up.

Three phases, each starting where the one before ended:

- *reading*: the text side alone learns what a text says of each finding: present, absent or nothing. Without it the
  difference between "X is present." and "X is not present." points the same way for every X, and no image can follow.
- *continuous*: the text encoder stays; image encoder and projections learn CLIP's symmetric contrast of volumes and
  reports with a learned temperature (cases of a batch with the very same findings are each other's pairs), and beside
  it each volume chooses between the two zero-shot prompts of every finding (CT-CLIP's VocabFine). So a later zero-shot
  test knows the prompts, not the volumes.
- *quantized*: a cosine k-means of the tokens starts the codebook; the same training goes on straight through it.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.backbones import backbone_digest
from common.backbones.base import NativeView
from common.backbones.ct_clip import MINI, CtClip, CtClipConfig, load_checkpoint, prompt
from common.backbones.ctvit import Encoded
from common.backbones.text import make_vocabulary
from common.data.batch import CT
from common.data.findings import FINDINGS
from common.errors import ConfigError
from simulations.pretraining.codebook import MovingCodebook

WEIGHTS, VOCABULARY, CARD = "ct_clip_mini.safetensors", "vocab.txt", "card.json"
COMMAND = "python -m simulations pretrain --out {out} --cases {cases} --epochs {epochs} --seed {seed}"


class Case(Protocol):
    """A chest case: volume in HU (D, H, W), 18 findings in the order of `FINDINGS`, and a report."""

    @property
    def hu(self) -> np.ndarray: ...
    @property
    def findings(self) -> Any: ...
    @property
    def report(self) -> str: ...


MakeCase = Callable[[np.random.Generator], Case]


@dataclass(frozen=True)
class Recipe:
    """Settings of the pretraining."""

    batch: int = 32
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    reading_steps: int = 500  # batches of reports and as many prompts, text side only
    warmup_steps: int = 30
    continuous_share: float = 0.6  # of the epochs, before there is a codebook
    prompt_pairs: float = 3.0  # weight of choosing between the prompts of each finding
    commitment: float = 0.25
    codebook_decay: float = 0.99
    start_temperature: float = math.log(1 / 0.07)
    largest_temperature: float = math.log(100.0)
    shift_voxels: int = 1
    clip_norm: float = 1.0


@dataclass
class Cohort:
    """Cases in memory.

    Args:
        hu: int16 (N, D, H, W).
        findings: bool (N, 18).
    """

    hu: Tensor
    findings: Tensor
    reports: list[str]

    def __len__(self) -> int:
        return len(self.reports)


def pretrain(
    out: Path,
    *,
    cases: int,
    epochs: int,
    seed: int,
    progress: Callable[[str], None] = print,
    make_case: MakeCase | None = None,
    recipe: Recipe | None = None,
) -> dict[str, Any]:
    """Trains the mini CT-CLIP on generated chest cases and writes weights, vocabulary and card.

    Args:
        out: folder for ``ct_clip_mini.safetensors``, ``vocab.txt`` and ``card.json``.
        cases: training cases; a quarter as many again, of another seed, are held out for the card's AUROC.
        epochs: passes over the cases.
        seed: of cases, initial weights and batches.
        progress: receives one line per epoch.
        make_case: draws one case; None: `simulations.phantom.chest_case`.

    Returns:
        The card.
    """
    recipe = recipe or Recipe()
    started, started_cpu = time.perf_counter(), time.process_time()
    make_case = make_case or _phantom_case()
    train = generate(make_case, cases, seed=seed)
    held_out = generate(make_case, max(2, cases // 4), seed=seed + 1)
    generated_s = time.perf_counter() - started
    progress(f"pretrain cases={cases} held_out={len(held_out)} seconds={generated_s:.0f}")

    out.mkdir(parents=True, exist_ok=True)
    config = _write_vocabulary(out, train.reports)
    model = _fit(config, train, epochs=epochs, seed=seed, recipe=recipe, progress=progress)
    _save(model, out / WEIGHTS)
    model = CtClip(config)
    load_checkpoint(model, out / WEIGHTS)  # what is scored is what is shipped
    model.freeze()
    card = {
        "what": "mini CT-CLIP, trained on synthetic chest cases only; for software tests and simulations, no clinic",
        "data": "simulations.phantom.chest_case, generated in memory; held out: another seed",
        "command": COMMAND.format(out=out, cases=cases, epochs=epochs, seed=seed),
        "seed": seed,
        "cases": cases,
        "epochs": epochs,
        "recipe": asdict(recipe),
        "digest": backbone_digest(model),
        "parameters": sum(p.numel() for p in model.parameters()),
        "codebook_rows_used": _rows_used(model, held_out),
        "held_out": {"seed": seed + 1, "cases": len(held_out), **evaluate(model, held_out)},
        "seconds": {"cases": round(generated_s, 1), "total": round(time.perf_counter() - started, 1)}
        | {"processor": round(time.process_time() - started_cpu, 1)},
    }
    (out / CARD).write_text(json.dumps(card, indent=1) + "\n")
    return card


def _phantom_case() -> MakeCase:
    from simulations.phantom import chest_case

    return chest_case


def generate(make_case: MakeCase, cases: int, *, seed: int) -> Cohort:
    """Draws cases one after the other from one seeded generator."""
    rng = np.random.default_rng(seed)
    drawn = [make_case(rng) for _ in range(cases)]
    hu = np.stack([np.clip(case.hu, -1024, 3071).round().astype(np.int16) for case in drawn])
    findings = np.stack([np.asarray(case.findings, dtype=bool) for case in drawn])
    return Cohort(torch.from_numpy(hu), torch.from_numpy(findings), [case.report for case in drawn])


def _write_vocabulary(out: Path, reports: Sequence[str]) -> CtClipConfig:
    """Writes vocab.txt from all words of chest and clinical reports; the mini config that reads it."""
    from client.data.hecktor.reports import clinical_vocabulary
    from simulations.phantom import chest_vocabulary

    words = sorted(chest_vocabulary() | clinical_vocabulary())
    tokens = make_vocabulary([*reports, *prompts(), " ".join(words)])
    if len(tokens) > MINI.text.vocabulary:
        raise ConfigError(
            f"The reports use {len(tokens)} tokens, but the mini text side has room for {MINI.text.vocabulary}; "
            "use fewer words in the report templates or a larger MINI.text.vocabulary."
        )
    (out / VOCABULARY).write_text("\n".join(tokens) + "\n")
    return replace(MINI, vocabulary=out / VOCABULARY)


# ------------------------------------------------------------------------------------------------------ training


def _fit(
    config: CtClipConfig, train: Cohort, *, epochs: int, seed: int, recipe: Recipe, progress: Callable[[str], None]
) -> CtClip:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = CtClip(config)
        reader = nn.Linear(config.text.hidden, len(FINDINGS) * 3)
    model.temperature.data.fill_(recipe.start_temperature)
    rng = np.random.default_rng([seed, 2])
    learn_to_read(model, reader, train, recipe=recipe, rng=rng, progress=progress)
    _Contrast(model, train, recipe, rng).run(epochs, progress)
    model.freeze()
    return model


ABSENT, PRESENT, UNSAID = 0, 1, 2


def learn_to_read(
    model: CtClip, reader: nn.Linear, train: Cohort, *, recipe: Recipe, rng: np.random.Generator,
    progress: Callable[[str], None],
) -> None:  # fmt: skip
    """Train the text encoder to tell, from its CLS vector, what a text says of each finding.

    Half of a batch are reports, which settle every finding; half are single prompts, which settle one.
    """
    optimizer = torch.optim.AdamW([*model.text_transformer.parameters(), *reader.parameters()], lr=recipe.learning_rate)
    schedule = _warmup_cosine(optimizer, recipe.warmup_steps, recipe.reading_steps)
    losses: list[float] = []
    told_every = max(1, recipe.reading_steps // 5)
    for number in range(1, recipe.reading_steps + 1):
        rows = rng.integers(0, len(train), recipe.batch)
        asked, answers = rng.integers(0, len(FINDINGS), recipe.batch), rng.integers(0, 2, recipe.batch)
        said = torch.full((recipe.batch, len(FINDINGS)), UNSAID)
        said[torch.arange(recipe.batch), torch.from_numpy(asked)] = torch.from_numpy(answers)
        texts = [train.reports[i] for i in rows]
        texts += [prompt(FINDINGS[i], present=bool(yes)) for i, yes in zip(asked, answers, strict=True)]
        truth = torch.cat([train.findings[rows].long(), said])  # (2B, 18): ABSENT, PRESENT or UNSAID
        logits = reader(read(model, texts)).unflatten(1, (len(FINDINGS), 3))
        loss = F.cross_entropy(logits.transpose(1, 2), truth)
        _step(loss, optimizer, [*model.text_transformer.parameters()], recipe.clip_norm)
        schedule.step()
        losses.append(loss.item())
        if number % told_every == 0:
            recent = np.mean(losses[-told_every:])
            progress(f"pretrain phase=reading step={number}/{recipe.reading_steps} loss={recent:.4f}")


class _Contrast:
    """The contrastive phases: the model, its cases and what moves along with it."""

    def __init__(self, model: CtClip, train: Cohort, recipe: Recipe, rng: np.random.Generator):
        assert model.to_visual_latent is not None
        self.model, self.train, self.recipe, self.rng = model, train, recipe, rng
        self.volumes = torch.cat([_resized(hu, model.native) for hu in train.hu.split(64)]).half()  # (N, 1, d, h, w)
        self.share = train.findings.float().mean(dim=0).clamp(0.02, 0.98)
        self.codebook: MovingCodebook | None = None
        with torch.no_grad():  # the text encoder is done learning: its vectors are computed once
            self.words = torch.cat([read(model, train.reports[i : i + 64]) for i in range(0, len(train), 64)])
            self.prompts = read(model, prompts())
        _remove_mean(model.to_text_latent, torch.cat([self.words, self.prompts]))
        with torch.no_grad():
            few = self._pool(model.visual_transformer(self.volumes[:64].float()))[0]
        _remove_mean(model.to_visual_latent, few)

    def run(self, epochs: int, progress: Callable[[str], None]) -> None:
        """Train for a number of passes."""
        model, recipe = self.model, self.recipe
        assert model.to_visual_latent is not None
        moving = [model.visual_transformer, model.to_visual_latent, model.to_text_latent]
        parameters = [*(p for module in moving for p in module.parameters()), model.temperature]
        optimizer = torch.optim.AdamW(parameters, lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
        batches = max(1, len(self.train) // recipe.batch)
        schedule = _warmup_cosine(optimizer, recipe.warmup_steps, epochs * batches)
        for epoch in range(epochs):
            if self.codebook is None and epoch >= round(recipe.continuous_share * epochs):
                self._start_codebook()
            began, losses = time.perf_counter(), []
            for rows in np.array_split(self.rng.permutation(len(self.train))[: batches * recipe.batch], batches):
                loss = self._loss(rows)
                _step(loss, optimizer, parameters, recipe.clip_norm)
                schedule.step()
                model.temperature.data.clamp_(max=recipe.largest_temperature)
                losses.append(loss.item())
            phase = "quantized" if self.codebook else "continuous"
            progress(
                f"pretrain phase={phase} epoch={epoch + 1}/{epochs} loss={np.mean(losses):.4f} "
                f"temperature={model.temperature.item():.2f} seconds={time.perf_counter() - began:.0f}"
            )

    def _loss(self, rows: np.ndarray) -> Tensor:
        model, findings = self.model, self.train.findings[rows]
        encoded = model.visual_transformer(self._shifted(rows))
        pooled, commitment = self._pool(encoded)
        assert model.to_visual_latent is not None
        image = F.normalize(model.to_visual_latent(pooled), dim=-1) * model.temperature.exp()
        text = F.normalize(model.to_text_latent(self.words[rows]), dim=-1)
        present, absent = F.normalize(model.to_text_latent(self.prompts), dim=-1).chunk(2)
        reports = contrast(image @ text.T, same_findings(findings))
        pairs = balanced(image @ (present - absent).T, findings, self.share)
        return reports + self.recipe.prompt_pairs * pairs + self.recipe.commitment * commitment

    def _pool(self, encoded: Encoded) -> tuple[Tensor, Tensor]:
        """Pooled image vectors (B, C) and the commitment loss."""
        tokens = encoded.hidden[-1]
        if self.codebook is None:
            return F.normalize(tokens, dim=-1).mean(dim=(1, 2, 3)), torch.zeros(())
        self.codebook.update(tokens.detach(), encoded.indices)
        commitment = 1 - F.cosine_similarity(tokens, encoded.quantized.detach(), dim=-1).mean()
        return encoded.quantized.mean(dim=(1, 2, 3)), commitment

    @torch.no_grad()
    def _start_codebook(self) -> None:
        encoder = self.model.visual_transformer
        tokens = torch.cat([encoder(v.float()).hidden[-1].flatten(0, -2) for v in self.volumes[:256].split(32)])
        decay = self.recipe.codebook_decay
        self.codebook = MovingCodebook(encoder.vq._codebook, tokens, decay=decay, rng=self.rng)

    def _shifted(self, rows: np.ndarray) -> Tensor:
        far = self.recipe.shift_voxels
        shifts = self.rng.integers(-far, far + 1, size=3)
        return torch.roll(self.volumes[rows], tuple(shifts.tolist()), dims=(2, 3, 4)).float()


def read(model: CtClip, texts: Sequence[str]) -> Tensor:
    """CLS vectors (B, C) of texts."""
    ids = model.tokenizer(list(texts))
    return model.text_transformer(input_ids=ids, attention_mask=(ids != 0).long()).last_hidden_state[:, 0]


@torch.no_grad()
def _remove_mean(projection: nn.Linear, features: Tensor) -> None:
    """Take the mean direction out of a projection.

    Encoders at their start say nearly the same of every case; a contrast of near-equal vectors has nearly no gradient.
    """
    mean = F.normalize(features.mean(dim=0), dim=0)
    projection.weight -= (projection.weight @ mean)[:, None] * mean


def _step(loss: Tensor, optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter], clip_norm: float) -> None:
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(parameters, clip_norm)
    optimizer.step()


def _warmup_cosine(optimizer: torch.optim.Optimizer, warmup: int, total: int) -> torch.optim.lr_scheduler.LambdaLR:
    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def prompts() -> list[str]:
    """All zero-shot prompts: every finding present, then every finding absent."""
    return [prompt(name, present=yes) for yes in (True, False) for name in FINDINGS]


def contrast(logits: Tensor, matches: Tensor) -> Tensor:
    """Symmetric cross-entropy of logits (B images, B texts) against all true pairs, bool (B, B), sharing the target.

    With matches on the diagonal only this is CLIP's loss.
    """
    by_image = matches / matches.sum(dim=1, keepdim=True)
    by_text = (matches / matches.sum(dim=0, keepdim=True)).T
    return 0.5 * (F.cross_entropy(logits, by_image) + F.cross_entropy(logits.T, by_text))


def same_findings(findings: Tensor) -> Tensor:
    """Which reports are true of which images, bool (B, B): those of cases with the very same findings, bool (B, 18)."""
    return (findings[:, None, :] == findings[None, :, :]).all(dim=-1)


def balanced(logits: Tensor, truth: Tensor, share: Tensor) -> Tensor:
    """Cross-entropy in which the positives and the negatives of each finding weigh the same.

    Without the balance the first thing learned is how rare each finding is, which the images have no part in.

    Args:
        logits, truth: (B, 18).
        share: (18,) of cases that have each finding.
    """
    weights = torch.where(truth, 0.5 / share, 0.5 / (1 - share))
    return F.binary_cross_entropy_with_logits(logits, truth.float(), weight=weights)


def scaled(hu: Tensor, ct_hu: tuple[float, float]) -> Tensor:
    """HU (B, D, H, W) clipped to the window and scaled to [-1, 1], as (B, 1, D, H, W)."""
    low, high = ct_hu
    return (hu[:, None].float().clamp(low, high) - low) * (2 / (high - low)) - 1


def _resized(hu: Tensor, native: NativeView) -> Tensor:
    """Scaled volumes on the native grid, (B, 1, d, h, w), averaged where the grid is coarser."""
    return F.interpolate(scaled(hu, native.ct_hu), size=native.size, mode="area")


# ---------------------------------------------------------------------------------------------------- evaluation


def evaluate(model: CtClip, cohort: Cohort) -> dict[str, Any]:
    """Zero-shot AUROC per finding with the number of positives; null where only one class occurs."""
    scores = torch.cat([model.zero_shot({CT: volumes}, FINDINGS) for volumes in _volumes(model, cohort)])
    table = {
        name: {"auroc": auroc(scores[:, i], cohort.findings[:, i]), "positives": int(cohort.findings[:, i].sum())}
        for i, name in enumerate(FINDINGS)
    }
    known = [row["auroc"] for row in table.values() if row["auroc"] is not None]
    return {"mean_auroc": round(float(np.mean(known)), 4) if known else None, "findings": table}


def auroc(scores: Tensor, truth: Tensor) -> float | None:
    """Share of (positive, negative) pairs ranked rightly, ties half; None without both classes."""
    gaps = scores[truth][:, None] - scores[~truth][None, :]
    if gaps.numel() == 0:
        return None
    return round(((gaps > 0).double() + 0.5 * (gaps == 0).double()).mean().item(), 4)


@torch.no_grad()
def _rows_used(model: CtClip, cohort: Cohort) -> int:
    indices = [model.visual_transformer(volumes).indices.flatten() for volumes in _volumes(model, cohort)]
    return len(torch.cat(indices).unique())


def _volumes(model: CtClip, cohort: Cohort) -> Iterable[Tensor]:
    return (_resized(hu, model.native) for hu in cohort.hu.split(32))


def _save(model: CtClip, path: Path) -> None:
    from safetensors.torch import save

    # Bytes first, so that the file gets ordinary permissions.
    path.write_bytes(save({name: tensor.contiguous() for name, tensor in model.state_dict().items()}))
