"""Pretraining of the mini CT-CLIP: contrast chest volumes with their reports, then learn the codebook.

Everything that moves weights or codebook lives here; the frozen module in `common/backbones` only looks things up.
The loss is CLIP's symmetric contrast of volumes and reports with a learned temperature (cases of a batch with the very
same findings count as each other's pairs). Beside it each volume chooses between the two zero-shot prompts of every
finding (CT-CLIP's VocabFine), so the prompts of a later zero-shot test are known, the volumes are not.

Three phases, each starting where the one before ended: *locked* (the text side learns to read against fixed image
features, which costs next to nothing), *continuous* (the image encoder joins, unquantised) and *quantized* (a cosine
k-means of the tokens starts the codebook; training goes on straight through it).
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
from common.backbones.ct_clip import MINI, CtClip, CtClipConfig, load_checkpoint, prompt
from common.backbones.ctvit import Encoded
from common.backbones.text import make_vocabulary
from common.batch import CT
from common.errors import ConfigError
from common.findings import FINDINGS
from simulations.codebook import MovingCodebook

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
    locked_epochs: int = 10  # before `epochs`, text side and projections only
    warmup_steps: int = 50
    continuous_share: float = 0.5  # of the epochs, before there is a codebook
    prompt_pairs: float = 3.0  # weight of choosing between the prompts of each finding
    commitment: float = 0.25
    codebook_decay: float = 0.99
    center_decay: float = 0.9
    start_temperature: float = math.log(1 / 0.07)
    largest_temperature: float = math.log(100.0)
    shift_voxels: int = 2
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
    from client.data.reports import clinical_vocabulary
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
        _start_from_principal_patches(model, train)
    lesson = Lesson(model, train, recipe, np.random.default_rng([seed, 2]))
    lesson.locked(recipe.locked_epochs, progress)
    lesson.unlocked(epochs, progress)
    model.freeze()
    return model


class Lesson:
    """One training run: the model, its cases and what moves along with it."""

    def __init__(self, model: CtClip, train: Cohort, recipe: Recipe, rng: np.random.Generator):
        assert model.to_visual_latent is not None
        self.model, self.train, self.recipe, self.rng = model, train, recipe, rng
        self.image_center = MovingCenter(model.to_visual_latent, decay=recipe.center_decay)
        self.text_center = MovingCenter(model.to_text_latent, decay=recipe.center_decay)
        self.codebook: MovingCodebook | None = None
        self.share = train.findings.float().mean(dim=0).clamp(0.02, 0.98)
        model.temperature.data.fill_(recipe.start_temperature)

    def locked(self, epochs: int, progress: Callable[[str], None]) -> None:
        """Text side and projections against the image features of the untrained encoder, computed once."""
        features = torch.cat([self._features(hu) for hu in self.train.hu.split(32)])
        assert self.model.to_visual_latent is not None
        _whiten(self.model.to_visual_latent, features)
        self.model.visual_transformer.requires_grad_(False)
        optimizer = _optimizer(self.model, self.recipe)
        for epoch in range(epochs):
            report = _Report()
            for rows in self._batches():
                self._step(self._loss(rows, features[rows], report), optimizer)
            progress(f"pretrain phase=locked epoch={epoch + 1}/{epochs} {report} T={self.model.temperature.item():.2f}")
        self.model.visual_transformer.requires_grad_(True)

    def unlocked(self, epochs: int, progress: Callable[[str], None]) -> None:
        """Everything, first unquantised, then through the codebook."""
        optimizer = _optimizer(self.model, self.recipe)
        steps = epochs * len(self._batches())
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, _warmup_cosine(self.recipe.warmup_steps, steps))
        for epoch in range(epochs):
            if self.codebook is None and epoch >= round(self.recipe.continuous_share * epochs):
                self._start_codebook()
            report = _Report()
            for rows in self._batches():
                volumes = torch.stack([self._shifted(volume) for volume in self.train.hu[rows]])
                encoded = self.model.visual_transformer(scaled(volumes, self.model.native.ct_hu))
                pooled, commitment = self._pool(encoded)
                self._step(self._loss(rows, pooled, report) + self.recipe.commitment * commitment, optimizer)
                schedule.step()
            phase = "quantized" if self.codebook else "continuous"
            progress(
                f"pretrain phase={phase} epoch={epoch + 1}/{epochs} {report} T={self.model.temperature.item():.2f}"
            )

    def _loss(self, rows: np.ndarray, pooled: Tensor, report: _Report) -> Tensor:
        model, findings = self.model, self.train.findings[rows]
        texts = [describe(self.train.reports[i], self.train.findings[i], self.rng) for i in rows]
        words = model.read(model.tokenizer(texts))
        present, absent = model.text_latent(model.tokenizer(prompts())).chunk(2)
        assert model.to_visual_latent is not None
        image = F.normalize(model.to_visual_latent(pooled), dim=-1) * model.temperature.exp()
        text = F.normalize(model.to_text_latent(words), dim=-1)
        reports = contrast(image @ text.T, same_findings(findings))
        pairs = balanced(image @ (present - absent).T, findings, self.share)
        self.image_center.see(pooled)
        self.text_center.see(words)
        report.add(reports, pairs)
        return reports + self.recipe.prompt_pairs * pairs

    def _step(self, loss: Tensor, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip_norm)
        optimizer.step()
        self.model.temperature.data.clamp_(max=self.recipe.largest_temperature)
        self.image_center.remove()
        self.text_center.remove()

    def _pool(self, encoded: Encoded) -> tuple[Tensor, Tensor]:
        """Image features (B, C) and how far the tokens are from their codebook rows."""
        tokens = encoded.hidden[-1]
        if self.codebook is None:
            return _mean_direction(tokens), torch.zeros(())
        self.codebook.update(tokens.detach(), encoded.indices)
        away = 1 - F.cosine_similarity(tokens, encoded.quantized.detach(), dim=-1).mean()
        return encoded.quantized.mean(dim=(1, 2, 3)), away

    @torch.no_grad()
    def _features(self, hu: Tensor) -> Tensor:
        return _mean_direction(self.model.visual_transformer(scaled(hu, self.model.native.ct_hu)).hidden[-1])

    @torch.no_grad()
    def _start_codebook(self) -> None:
        some = self.train.hu[self.rng.permutation(len(self.train))[:256]]
        encoder, ct_hu = self.model.visual_transformer, self.model.native.ct_hu
        tokens = torch.cat([encoder(scaled(hu, ct_hu)).hidden[-1].flatten(0, -2) for hu in some.split(32)])
        self.codebook = MovingCodebook(encoder.vq._codebook, tokens, decay=self.recipe.codebook_decay, rng=self.rng)

    def _batches(self) -> list[np.ndarray]:
        order = self.rng.permutation(len(self.train))
        return np.array_split(order, max(1, len(order) // self.recipe.batch))

    def _shifted(self, volume: Tensor) -> Tensor:
        voxels = self.recipe.shift_voxels
        shift = self.rng.integers(-voxels, voxels + 1, size=3)
        return torch.roll(volume, tuple(int(s) for s in shift), dims=(0, 1, 2))


class MovingCenter:
    """Keeps a projection blind to the mean direction of what it projects.

    Features of different cases differ little from their mean. A contrast that is still blind gains most by mapping
    every case onto that mean, where its loss is exactly chance and its gradient nearly zero: it collapses.
    """

    def __init__(self, projection: nn.Linear, *, decay: float):
        self._projection, self._decay = projection, decay
        self._mean: Tensor | None = None

    @torch.no_grad()
    def see(self, features: Tensor) -> None:
        """Follows the mean of features (B, C)."""
        mean = features.mean(dim=0)
        self._mean = mean if self._mean is None else self._mean.lerp(mean, 1 - self._decay)

    @torch.no_grad()
    def remove(self) -> None:
        """Takes the mean direction out of the projection."""
        assert self._mean is not None
        direction, weight = F.normalize(self._mean, dim=0), self._projection.weight
        weight -= (weight @ direction)[:, None] * direction


class _Report:
    """The losses of one epoch, as log fields."""

    def __init__(self) -> None:
        self._losses: list[tuple[float, float]] = []
        self._began = time.perf_counter()

    def add(self, reports: Tensor, pairs: Tensor) -> None:
        self._losses.append((reports.item(), pairs.item()))

    def __str__(self) -> str:
        reports, pairs = np.mean(self._losses, axis=0)
        return f"reports={reports:.4f} pairs={pairs:.4f} seconds={time.perf_counter() - self._began:.0f}"


@torch.no_grad()
def _start_from_principal_patches(model: CtClip, train: Cohort) -> None:
    """Patch filters start as the principal components of training patches: smooth, where random ones see noise."""
    cut, norm, linear = (model.visual_transformer.to_patch_emb[i] for i in range(3))
    assert isinstance(linear, nn.Linear)
    patches = norm(cut(scaled(train.hu[:64], model.native.ct_hu)).flatten(0, -2))
    _, _, components = torch.linalg.svd(patches - patches.mean(dim=0), full_matrices=False)
    rows = min(len(components), len(linear.weight))
    linear.weight[:rows] = 0.3 * components[:rows]
    linear.bias.normal_()  # so that a patch of pure noise is one constant token, not amplified noise


@torch.no_grad()
def _whiten(projection: nn.Linear, features: Tensor) -> None:
    """Starts a projection as the whitening of features (N, C), its rows of unit length on average."""
    centered = features - features.mean(dim=0)
    variances, directions = torch.linalg.eigh(centered.T @ centered / len(centered))
    whitening = (directions / (variances + 1e-3 * variances.max()).sqrt()).T
    rows = min(len(whitening), len(projection.weight))
    projection.weight[:rows] = whitening[-rows:] / whitening[-rows:].norm() * math.sqrt(rows)


def _mean_direction(tokens: Tensor) -> Tensor:
    return F.normalize(tokens, dim=-1).mean(dim=(1, 2, 3))


def _optimizer(model: CtClip, recipe: Recipe) -> torch.optim.Optimizer:
    decayed = [p for n, p in model.named_parameters() if p.ndim >= 2 and "embedding" not in n]
    # Words that no chest report uses must keep their own random vectors, so embeddings do not decay.
    rest = [p for n, p in model.named_parameters() if p.ndim < 2 or "embedding" in n]
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": rest, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=recipe.learning_rate)


def _warmup_cosine(warmup: int, total: int) -> Callable[[int], float]:
    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))

    return factor


# --------------------------------------------------------------------------------------------- texts and losses


def prompts() -> list[str]:
    """All zero-shot prompts: every finding present, then every finding absent."""
    return [prompt(name, present=yes) for yes in (True, False) for name in FINDINGS]


def describe(report: str, findings: Tensor, rng: np.random.Generator) -> str:
    """The report; every other time with the prompts of one to three findings appended, present ones preferred."""
    if rng.random() < 0.5:
        return report
    odds = np.where(findings.numpy(), 4.0, 1.0)
    chosen = rng.choice(len(FINDINGS), size=rng.integers(1, 4), replace=False, p=odds / odds.sum())
    return " ".join([report, *(prompt(FINDINGS[i], present=bool(findings[i])) for i in chosen)])


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
    return (scaled(hu, model.native.ct_hu) for hu in cohort.hu.split(32))


def _save(model: CtClip, path: Path) -> None:
    from safetensors.torch import save

    # Bytes first, so that the file gets ordinary permissions.
    path.write_bytes(save({name: tensor.contiguous() for name, tensor in model.state_dict().items()}))
