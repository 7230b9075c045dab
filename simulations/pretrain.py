"""Pretraining of the mini CT-CLIP: contrast chest volumes with their reports, then learn the codebook.

Everything that moves weights or codebook lives here; the frozen module in `common/backbones` only looks things up.
The recipe: CLIP's symmetric contrast of volumes and reports with a learned temperature; cases of a batch with the very
same findings count as each other's pairs. Beside it each volume chooses between the two zero-shot prompts of every finding (CT-CLIP's VocabFine), so the prompts
of a later zero-shot test are known, the volumes are not.
Warm-up epochs contrast unquantised tokens; then a cosine k-means of the tokens starts the codebook, and the rest
trains through it, straight through, with a commitment term and moving averages.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from common.backbones import backbone_digest
from common.backbones.ct_clip import MINI, CtClip, CtClipConfig, load_checkpoint, prompt
from common.backbones.text import make_vocabulary
from common.batch import CT
from common.errors import ConfigError
from common.findings import FINDINGS

WEIGHTS, VOCABULARY, CARD = "ct_clip_mini.safetensors", "vocab.txt", "card.json"
COMMAND = "python -m simulations pretrain --out {out} --cases {cases} --epochs {epochs} --seed {seed}"

# What the report template for head and neck records may say; the mini model must be able to read it as words.
CLINICAL_WORDS = """
    patient year years old man woman male female aged age weight weighs weighing kg smoker smokes smoking smoked never
    drinks drinking alcohol tobacco use user uses consumption does do not performance status zubrod ecog score hpv
    human papillomavirus positive negative surgery surgical surgically chemotherapy radiotherapy chemoradiotherapy
    treated treatment treatments received receives underwent before after head and neck head-neck cancer oropharyngeal
    oropharynx squamous cell carcinoma primary tumour tumor node nodes nodal stage t n m body current currently former
    history known unknown recorded record records report clinical is was were are has had have yes no none planned with
    without of in on the a an for to by at this who scan imaging pet ct gender sex
"""


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
    warmup_steps: int = 50
    continuous_share: float = 0.4  # of the epochs, before there is a codebook
    prompt_pairs: float = 3.0  # weight of choosing between the prompts of each finding
    commitment: float = 0.25
    codebook_decay: float = 0.99
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
    """Writes vocab.txt from the reports, the prompts and the clinical words; the mini config that reads it."""
    tokens = make_vocabulary([*reports, *prompts(), CLINICAL_WORDS])
    if len(tokens) > MINI.text.vocabulary:
        raise ConfigError(
            f"The reports use {len(tokens)} tokens, but the mini text side has room for {MINI.text.vocabulary}; "
            "use fewer words in the report templates or a larger MINI.text.vocabulary."
        )
    (out / VOCABULARY).write_text("\n".join(tokens) + "\n")
    return CtClipConfig(
        image=MINI.image,
        text=MINI.text,
        dim_latent=MINI.dim_latent,
        visual_pooling=MINI.visual_pooling,
        native=MINI.native,
        vocabulary=out / VOCABULARY,
    )


# ------------------------------------------------------------------------------------------------------ training


def _fit(
    config: CtClipConfig,
    train: Cohort,
    *,
    epochs: int,
    seed: int,
    recipe: Recipe,
    progress: Callable[[str], None],
) -> CtClip:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = CtClip(config)
    model.temperature.data.fill_(recipe.start_temperature)
    rng = np.random.default_rng([seed, 2])
    _center_projections(model, train)
    batches = max(1, len(train) // recipe.batch)
    optimizer = _optimizer(model, recipe)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, _warmup_cosine(recipe.warmup_steps, epochs * batches))
    codebook: MovingCodebook | None = None
    for epoch in range(epochs):
        if codebook is None and epoch >= round(recipe.continuous_share * epochs):
            codebook = MovingCodebook.start(model, train, rng, decay=recipe.codebook_decay)
        began, losses = time.perf_counter(), []
        for rows in np.array_split(rng.permutation(len(train))[: batches * recipe.batch], batches):
            loss = _loss(model, train, rows, rng, recipe, codebook)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm)
            optimizer.step()
            schedule.step()
            model.temperature.data.clamp_(max=recipe.largest_temperature)
            losses.append(loss.item())
        progress(
            f"pretrain epoch={epoch + 1}/{epochs} loss={np.mean(losses):.4f} quantized={codebook is not None} "
            f"temperature={model.temperature.item():.2f} seconds={time.perf_counter() - began:.0f}"
        )
    return model.freeze()  # type: ignore[return-value]


@torch.no_grad()
def _center_projections(model: CtClip, train: Cohort) -> None:
    """Takes the mean direction of images and of texts out of the projections.

    Untrained encoders say nearly the same of every case (cosine 0.9 and 0.99), and a contrast of near-equal vectors
    has nearly no gradient: without this, hundreds of steps pass before anything is learned.
    """
    few = slice(0, 128)
    tokens = model.visual_transformer(scaled(train.hu[few], model.native.ct_hu)).hidden[-1]
    ids = model.tokenizer([*train.reports[few], *prompts()])
    words = model.text_transformer(input_ids=ids, attention_mask=(ids != 0).long()).last_hidden_state[:, 0]
    assert model.to_visual_latent is not None
    for projection, features in (
        (model.to_visual_latent, F.normalize(tokens, dim=-1).mean(dim=(1, 2, 3))),
        (model.to_text_latent, words),
    ):
        mean = F.normalize(features.mean(dim=0), dim=0)
        projection.weight -= (projection.weight @ mean)[:, None] * mean


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


def _loss(
    model: CtClip,
    train: Cohort,
    rows: np.ndarray,
    rng: np.random.Generator,
    recipe: Recipe,
    codebook: MovingCodebook | None,
) -> Tensor:
    findings = train.findings[rows]
    texts = [describe(train.reports[i], train.findings[i], rng) for i in rows]
    volumes = torch.stack([_shifted(volume, rng, recipe.shift_voxels) for volume in train.hu[rows]])
    encoded = model.visual_transformer(scaled(volumes, model.native.ct_hu))
    tokens, commitment = encoded.hidden[-1], torch.zeros(())
    if codebook is None:
        pooled = F.normalize(tokens, dim=-1).mean(dim=(1, 2, 3))
    else:
        pooled = encoded.quantized.mean(dim=(1, 2, 3))
        commitment = 1 - F.cosine_similarity(tokens, encoded.quantized.detach(), dim=-1).mean()
        codebook.update(tokens.detach(), encoded.indices)
    assert model.to_visual_latent is not None
    image = F.normalize(model.to_visual_latent(pooled), dim=-1)
    text = model.text_latent(model.tokenizer(texts))
    present, absent = model.text_latent(model.tokenizer(prompts())).chunk(2)
    scale = model.temperature.exp()
    reports = contrast(scale * image @ text.T, same_findings(findings))
    share = train.findings.float().mean(dim=0).clamp(0.02, 0.98)
    pairs = balanced(scale * image @ (present - absent).T, findings, share)
    return reports + recipe.prompt_pairs * pairs + recipe.commitment * commitment


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


def describe(report: str, findings: Tensor, rng: np.random.Generator) -> str:
    """The report; every other time with the prompts of one to three findings appended, present ones preferred."""
    if rng.random() < 0.5:
        return report
    odds = np.where(findings.numpy(), 4.0, 1.0)
    chosen = rng.choice(len(FINDINGS), size=rng.integers(1, 4), replace=False, p=odds / odds.sum())
    return " ".join([report, *(prompt(FINDINGS[i], present=bool(findings[i])) for i in chosen)])


def balanced(logits: Tensor, truth: Tensor, share: Tensor) -> Tensor:
    """Cross-entropy in which the positives and the negatives of each finding weigh the same.

    Without the balance the first thing learned is how rare each finding is, which one constant vector for all images
    expresses best: the images collapse onto it and the contrast dies.

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


def _shifted(volume: Tensor, rng: np.random.Generator, voxels: int) -> Tensor:
    shift = rng.integers(-voxels, voxels + 1, size=3)
    return torch.roll(volume, tuple(int(s) for s in shift), dims=(0, 1, 2))


class MovingCodebook:
    """Trains a codebook by moving averages of the unit tokens that chose each row (cosine, as CTViT's own)."""

    def __init__(self, model: CtClip, *, decay: float, rng: np.random.Generator):
        self._buffers = model.visual_transformer.vq._codebook
        self._sums = self._buffers.embed[0].clone()
        self._decay = decay
        self._rng = rng
        self._buffers.cluster_size.fill_(1.0)

    @classmethod
    def start(cls, model: CtClip, train: Cohort, rng: np.random.Generator, *, decay: float) -> MovingCodebook:
        """Fills the rows with a cosine k-means of the tokens of some training cases."""
        tokens = []
        with torch.no_grad():
            for rows in np.array_split(rng.permutation(len(train))[:256], 8):
                if len(rows):
                    volumes = scaled(train.hu[rows], model.native.ct_hu)
                    tokens.append(model.visual_transformer(volumes).hidden[-1].flatten(0, -2))
        size = model.config.image.codebook_size
        model.visual_transformer.vq._codebook.embed[0].copy_(cosine_kmeans(torch.cat(tokens), size, rng=rng))
        return cls(model, decay=decay, rng=rng)

    @torch.no_grad()
    def update(self, tokens: Tensor, indices: Tensor) -> None:
        """One moving-average step; a row that nearly no token chooses any more restarts at a random token."""
        unit, chosen = F.normalize(tokens.flatten(0, -2), dim=-1), indices.flatten()
        counts = torch.bincount(chosen, minlength=len(self._sums)).float()
        sums = torch.zeros_like(self._sums).index_add_(0, chosen, unit)
        sizes = self._buffers.cluster_size[0]
        sizes.lerp_(counts, 1 - self._decay)
        self._sums.lerp_(sums, 1 - self._decay)
        dead = (sizes < 0.05).nonzero().flatten()
        if len(dead):
            self._sums[dead] = unit[torch.from_numpy(self._rng.integers(0, len(unit), size=len(dead)))]
            sizes[dead] = 1.0
        self._buffers.embed[0].copy_(F.normalize(self._sums, dim=-1))


def cosine_kmeans(points: Tensor, clusters: int, *, rng: np.random.Generator, iterations: int = 10) -> Tensor:
    """Unit centers (clusters, C) of points (N, C) by angle; an empty cluster keeps its center."""
    points = F.normalize(points, dim=-1)
    centers = points[torch.from_numpy(rng.choice(len(points), size=clusters, replace=len(points) < clusters))].clone()
    for _ in range(iterations):
        nearest = (points @ centers.T).argmax(dim=-1)
        sums = torch.zeros_like(centers).index_add_(0, nearest, points)
        filled = torch.bincount(nearest, minlength=clusters) > 0
        centers[filled] = F.normalize(sums[filled], dim=-1)
    return centers


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
