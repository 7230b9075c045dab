"""The pretraining itself: renderings drawn, the loss descended, all of it kept often enough to go on after a stop."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Generator, Tensor, nn

from common.backbones import backbone_digest
from common.backbones.shapes import CONFIGS, ShapesUnet
from common.errors import ConfigError
from common.files import write_bytes, write_json
from simulations.pretraining.shapes.contrast import Projection, contrast
from simulations.pretraining.shapes.labels import label_map
from simulations.pretraining.shapes.rendering import render

WEIGHTS, CARD, STATE = "shapes.safetensors", "card.json", "unfinished.pt"
COMMAND = "python -m simulations pretrain shapes --out {out} --steps {steps} --side {side} --seed {seed}"
CONTRASTED = 3  # levels of the pyramid, from full resolution down


@dataclass(frozen=True)
class Recipe:
    """Settings of the pretraining."""

    batch: int = 6
    side: int = 32  # voxels of a crop
    learning_rate: float = 2e-3
    weight_decay: float = 0.01
    warmup_steps: int = 50
    lowest: float = 0.02  # share of the learning rate at the end of the cosine
    clip_norm: float = 1.0
    save_every_s: float = 60.0


def pretrain_shapes(
    out: Path,
    *,
    steps: int,
    seed: int,
    recipe: Recipe = Recipe(),
    config: str = "base",
    progress: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Trains the U-Net on random shapes, or goes on with a pretraining that was stopped, and writes weights and card.

    Args:
        out: folder of ``shapes.safetensors`` and ``card.json``; ``unfinished.pt`` stands there until the end.
        steps: optimizer steps, ``recipe.batch`` pairs of renderings each.
        seed: of weights, label maps, renderings and samples.
        config: of `common.backbones.shapes.CONFIGS`.

    Returns:
        The card.

    Raises:
        ConfigError: what was left unfinished in ``out`` was begun with other settings, or is damaged.
    """
    training = _Training(out, steps=steps, seed=seed, recipe=recipe, config=config)
    training.go_on(progress)
    return training.finish()


class _Training:
    """The network, its projection and its optimizer at one step."""

    def __init__(self, out: Path, *, steps: int, seed: int, recipe: Recipe, config: str):
        if steps < 1 or recipe.side % 8 or recipe.side < 16:
            raise ConfigError(f"A pretraining of {steps} steps on crops of {recipe.side} voxels: one step or more, and "
                              "a side from 16 in multiples of 8.")  # fmt: skip
        self.out, self.steps, self.seed, self.recipe, self.config = out, steps, seed, recipe, config
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.net = ShapesUnet(CONFIGS[config])
            self.project = Projection([level.channels for level in self.net.levels[:CONTRASTED]])
        self.parameters = [*self.net.parameters(), *self.project.parameters()]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
        self.done, self.seconds, self.losses = 0, 0.0, [0.0]
        self.losses.clear()
        out.mkdir(parents=True, exist_ok=True)
        self._resume()

    def go_on(self, progress: Callable[[str], None]) -> None:
        """Descend until all steps are done."""
        self.net.train()
        began, told = time.perf_counter(), time.perf_counter()
        while self.done < self.steps:
            self._set_rate()
            loss = self._loss()
            self.optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(self.parameters, self.recipe.clip_norm)
            self.optimizer.step()
            self.losses.append(loss.item())
            self.done += 1
            now = time.perf_counter()
            if now - told > self.recipe.save_every_s:
                self.seconds += now - began
                began = told = now
                self._save()
                left = self.seconds / self.done * (self.steps - self.done)
                recent = sum(self.losses[-100:]) / len(self.losses[-100:])
                progress(f"pretrain shapes step={self.done}/{self.steps} loss={recent:.4f} min_left={left / 60:.0f}")
        self.seconds += time.perf_counter() - began

    def finish(self) -> dict[str, Any]:
        """Write weights and card, and drop what was kept to go on."""
        self.net.freeze()
        tensors = {name: tensor.contiguous() for name, tensor in self.net.state_dict().items()}
        write_bytes(self.out / WEIGHTS, save(tensors))
        names = {"out": self.out, "steps": self.steps, "side": self.recipe.side, "seed": self.seed}
        last = self.losses[-max(1, len(self.losses) // 20) :]
        card = {
            "model": "ShapesUnet", "config": self.config, "digest": backbone_digest(self.net),
            "parameters": sum(p.numel() for p in self.net.parameters()),
            "data": "random label maps, rendered twice each; no image of any patient, synthetic or real",
            "license": "Apache-2.0", "command": COMMAND.format(**names), "recipe": asdict(self.recipe),
            "steps": self.steps, "seed": self.seed, "seconds": round(self.seconds),
            "loss": {"first": round(self.losses[0], 4), "last": round(sum(last) / len(last), 4)},
        }  # fmt: skip
        write_json(self.out / CARD, card)
        (self.out / STATE).unlink(missing_ok=True)
        return card

    def _loss(self) -> Tensor:
        """Each step draws from its own generator, so a pretraining that was stopped goes on with the same images."""
        generator = Generator().manual_seed((self.seed << 32) + self.done)
        maps = [label_map(self.recipe.side, generator) for _ in range(self.recipe.batch)]
        pair = [torch.stack([render(labels, generator) for labels in maps])[:, None] for _ in range(2)]
        levels, _ = self.net.encode([self.net.patch_embed(torch.cat(pair))], None)
        halves = [level.chunk(2) for level in levels[:CONTRASTED]]
        first, second = [one for one, _ in halves], [other for _, other in halves]
        return contrast(first, second, torch.stack(maps), self.project, generator)

    def _set_rate(self) -> None:
        recipe = self.recipe
        if self.done < recipe.warmup_steps:
            share = (self.done + 1) / recipe.warmup_steps
        else:
            through = (self.done - recipe.warmup_steps) / max(1, self.steps - recipe.warmup_steps)
            share = recipe.lowest + (1 - recipe.lowest) * 0.5 * (1 + math.cos(math.pi * through))
        for group in self.optimizer.param_groups:
            group["lr"] = recipe.learning_rate * share

    # ------------------------------------------------------------------------------------------------------- stops

    def _settings(self) -> str:
        return json.dumps({"steps": self.steps, "seed": self.seed, "config": self.config, **asdict(self.recipe)})

    def _save(self) -> None:
        path = self.out / STATE
        torch.save(
            {"settings": self._settings(), "net": self.net.state_dict(), "project": self.project.state_dict(),
             "optimizer": self.optimizer.state_dict(), "done": self.done, "seconds": self.seconds,
             "losses": self.losses},
            path.with_suffix(".part"),
        )  # fmt: skip
        path.with_suffix(".part").replace(path)

    def _resume(self) -> None:
        path = self.out / STATE
        if not path.exists():
            return
        try:
            kept = torch.load(path, weights_only=True)
        except Exception as error:  # pickle, zip and torch each have their own kinds
            raise ConfigError(f"{path} is damaged ({type(error).__name__}); delete it to begin anew.") from error
        if kept["settings"] != self._settings():
            raise ConfigError(
                f"{path} was begun with other settings ({kept['settings']}); repeat that command, choose another --out,"
                " or delete the file."
            )
        self.net.load_state_dict(kept["net"])
        self.project.load_state_dict(kept["project"])
        self.optimizer.load_state_dict(kept["optimizer"])
        self.done, self.seconds, self.losses = kept["done"], kept["seconds"], kept["losses"]
