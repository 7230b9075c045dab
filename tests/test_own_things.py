"""The worked pages on own things: each page's code, written to a folder, runs a small federation to its end."""

from __future__ import annotations

import json
import re
import shlex
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from common import plugins
from common.backbones import backbone_digest, load_backbone
from common.backbones.base import NativeView
from common.config import load as loading
from common.config.adapter import LoraPart
from common.config.load import compose_run
from common.config.rules import broken_rules
from common.config.run import BackboneSpec, Run
from common.config.step import Selection
from common.config.view import View
from common.errors import BankError, ConfigError
from common.model.adapted import AdaptedModel
from common.tasks import build_task
from server.aggregation import Setting, Update, aggregate
from server.curriculum import Coordinator
from simulations.__main__ import main
from simulations.studies.options import OPTIONS
from simulations.studies.run import STUDIES
from tests.helpers.small import SIDE, SPACING, federate

PAGES = Path(__file__).resolve().parents[1] / "docs" / "developer"
CODE = re.compile(r'```python title="(\w+\.py)"\n(.*?)```', re.DOTALL)
COMMAND = re.compile(r"```\npython -m simulations run (.*?)```", re.DOTALL)

pytestmark = pytest.mark.usefixtures("no_plugins")
Compose = Callable[..., Run]


@pytest.fixture
def page(tmp_path, monkeypatch) -> Compose:
    """Composes a page's own command beside its own files, for the tests' patients: one round of 16 voxels a side."""

    def compose(name: str, *more: str, step: str) -> Run:
        text = (PAGES / name).read_text()
        for title, code in CODE.findall(text):
            (tmp_path / title).write_text(code)
        monkeypatch.chdir(tmp_path)
        [command, *_] = COMMAND.findall(text)
        run = compose_run([*shlex.split(command.replace("\\\n", " ")), *more])
        assert broken_rules(run) == []
        return _small(run, step)

    return compose


def _small(run: Run, name: str) -> Run:
    step = run.steps[name]
    run.steps, run.name = {name: step}, "small"
    run.data.split.folds, run.data.split.validation = 3, 0.34
    step.view = View([SPACING] * 3, [SIDE] * 3, [SIDE] * 3, crop="center", intensities=step.view.intensities)
    step.rounds, step.starts_from, step.selection = 1, None, Selection()
    step.training.batch, step.training.epochs, step.training.augment = 2, 1, False
    step.centers, step.evaluate_at = ["*"], ["*"]
    return run


def scores(leader: Coordinator, metric: str) -> dict[str, float]:
    """Center -> score after the only step."""
    [done] = leader.ledger.events("step_finished")
    return {row["center"]: row["value"] for row in done["scores"] if row["metric"] == metric}


@pytest.mark.parametrize(
    "name", ["own-backbone.md", "own-method.md", "own-modality.md", "own-rule.md", "own-study.md", "own-task.md"]
)
def test_a_page_has_less_than_forty_lines_of_code(name):
    [(_, code)] = CODE.findall((PAGES / name).read_text())
    lines = [line for line in code.splitlines() if line.strip() and not line.startswith(("#", '"""'))]
    assert len(lines) < 40


@pytest.mark.parametrize("dora", [False, True])
def test_a_segresnet_stays_frozen_while_adapters_inside_its_convolutions_learn(page, small_centers, tmp_path, dora):
    option = f"steps.tumour_ct.adapter.parts.within.dora={str(dora).lower()}"
    run = page("own-backbone.md", option, step="tumour_ct")
    before = load_backbone(run.backbone)
    assert before.native == NativeView((1.0, 1.0, 1.0), (96, 96, 96), (-1000.0, 1000.0))
    leader = federate(run, tmp_path / "run", small_centers)
    [done] = leader.ledger.events("step_finished")
    state = leader.bank.get(done["key"])
    factors = [name for name in state if name.endswith("lora_B.weight")]
    assert {state[name].ndim for name in factors} == {5} and len(factors) == 8
    started = AdaptedModel(before, run.steps["tumour_ct"], seed=run.seed).state()  # a stack starts each round at zero
    assert any(not torch.equal(state[name], started[name]) for name in state if name.startswith("within/"))
    assert backbone_digest(load_backbone(run.backbone)) == backbone_digest(before)
    assert not any(parameter.requires_grad for parameter in before.parameters())
    assert set(scores(leader, "dsc_agg")) == {"CHUM", "CHUP", "HMR", "MDA", "pooled"}


def test_a_checkpoint_of_segresnet_gives_monais_own_features(page, tmp_path):
    from monai.networks.nets import SegResNet

    page("own-backbone.md", step="tumour_ct")
    torch.manual_seed(3)
    net = SegResNet(init_filters=8, in_channels=1, blocks_down=(1, 1, 1)).eval()
    torch.save(net.state_dict(), tmp_path / "net.pt")
    ours = load_backbone(BackboneSpec(kind="segresnet_small", weights=str(tmp_path / "net.pt")))
    volume = torch.rand(1, 1, 8, 12, 16) * 2 - 1  # z, y, x
    with torch.no_grad():
        features = ours({"CT": volume}, {"CT": torch.tensor([True])})
        _, down = net.encode(((volume + 1) / 2).permute(0, 1, 4, 3, 2))
    for mine, theirs in zip(features.pyramid, down, strict=True):
        assert torch.equal(mine, theirs.permute(0, 1, 4, 3, 2))
    assert [level.stride for level in ours.levels] == [(1, 1, 1), (2, 2, 2), (4, 4, 4)]


def test_the_rule_goes_half_the_way(page, small_centers, tmp_path):
    run = page("own-rule.md", step="tumour_ct")
    rule = run.steps["tumour_ct"].federation
    updates = [
        Update("A", {"head/w": torch.tensor([3.0, 0.0])}, 1.0),
        Update("B", {"head/w": torch.tensor([1.0, 4.0])}, 3.0),
    ]
    start = {"head/w": torch.tensor([0.5, 1.0]), "head/b": torch.tensor([7.0])}
    done = aggregate(updates, start, {}, Setting(rule))
    assert done.state["head/w"].tolist() == [1.0, 2.0] and done.state["head/b"].tolist() == [7.0]
    assert done.report == {"share": 0.5}
    leader = federate(run, tmp_path / "run", small_centers)
    assert len(leader.ledger.events("round_finished")) == 1 and scores(leader, "dsc_agg")["pooled"] is not None


def test_the_method_slows_the_parts_that_it_names(page, small_centers, tmp_path):
    run = page("own-method.md", step="relapse")
    step = run.steps["relapse"]
    step.centers = step.evaluate_at = ["CHUP"]
    started = AdaptedModel(load_backbone(run.backbone), step, seed=run.seed).state()
    moved = {}
    for share, parts in ((0.0, ["within"]), (1.0, ["within"]), (1.0, [])):
        step.methods[0].share, step.methods[0].parts = share, parts
        leader = federate(run, tmp_path / f"{share}{len(parts)}", small_centers)
        state = leader.bank.get(leader.ledger.events("step_finished")[0]["key"])
        moved[share, len(parts)] = {name for name, t in state.items() if not torch.equal(t, started[name])}
    assert moved[1.0, 1] == moved[1.0, 0] and {name.partition("/")[0] for name in moved[1.0, 1]} >= {"head", "within"}
    assert moved[0.0, 1] == {name for name in moved[1.0, 0] if not name.startswith("within/")}


def test_a_center_without_the_rule_answers_unknown(page, small_centers, tmp_path, monkeypatch, caplog):
    from common import plugins
    from common.protocol.wire import unpack_reply
    from simulations.virtual.local_grid import LocalGrid

    class Forgetful(LocalGrid):
        """Centers that have no plugin."""

        answers: list = []  # noqa: RUF012

        def _work(self, messages, *, timeout):
            added, loaded = dict(plugins.ADDED), dict(plugins.LOADED)
            plugins.ADDED.clear()
            monkeypatch.setenv(plugins.INHERITED, "")
            try:
                found = super()._work(messages, timeout=timeout)
            finally:
                plugins.ADDED.update(added)
                plugins.LOADED.update(loaded)
            type(self).answers += [unpack_reply(reply.content).code for _, reply in found]
            return found

    from common.config import load as loading
    from common.errors import RoundFailed

    run = page("own-rule.md", step="tumour_ct")
    loading._parsed_step.cache_clear()
    with pytest.raises(RoundFailed):
        federate(run, tmp_path / "run", small_centers, grid=Forgetful)
    assert Forgetful.answers and set(Forgetful.answers) == {"unknown"}
    assert "Unknown federation 'halfway'" in caplog.text


def test_the_task_is_learned_and_scored_by_sums(page, small_centers, tmp_path):
    run = page("own-task.md", step="relapse")
    task = build_task(run.steps["relapse"].task)
    sums = task.sums([{"error": np.array(4.0)}, {"error": np.array(16.0)}])
    assert task.metrics(sums) == {"within_scale": 0.5, "error": 10.0}
    assert task.metrics(task.sums([])) == {"within_scale": None, "error": None}
    assert {name: np.shape(value) for name, value in sums.items()} == task.sum_shapes
    leader = federate(run, tmp_path / "run", small_centers)
    [done] = leader.ledger.events("step_finished")
    assert {"head/weight", "head/bias"} <= set(leader.bank.get(done["key"]))
    assert 0 <= scores(leader, "within_scale")["pooled"] <= 1 and scores(leader, "error")["pooled"] > 0


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda layer: setattr(layer, "padding_mode", "reflect"), "stages.1.0.conv pads by 'reflect'"),
        (lambda layer: setattr(layer, "dilation", (2, 2, 2)), r"stages.1.0.conv is dilated by \(2, 2, 2\)"),
        (lambda layer: layer.weight.data[3].zero_(), "stages.1.0.conv has 1 filters of zeros"),
    ],
)
def test_convolutions_that_peft_adapts_wrongly_are_refused_by_name(page, change, sentence):
    from common.adapters.lora import target_modules
    from common.errors import AdapterError

    run = page("own-backbone.md", step="tumour_ct")
    backbone = load_backbone(run.backbone)
    change(backbone.get_submodule("stages.1.0.conv"))
    part = LoraPart(sites=["image_convolutions"], dora=True)
    with pytest.raises(AdapterError, match=sentence):
        target_modules(backbone, part)


def test_mr_beside_ct_is_read_by_an_own_reader_and_learned(page, small_root, tmp_path):
    import shutil

    import yaml
    from omegaconf import OmegaConf

    from common import plugins
    from common.config.adapter import PARTS, Adapter
    from tests.helpers.small import SIZES, small_run, write_centers

    text = (PAGES / "own-modality.md").read_text()
    [(title, code)] = CODE.findall(text)
    (tmp_path / title).write_text(code)
    shutil.copytree(small_root, tmp_path / "cohort")
    for path in (tmp_path / "cohort" / "imagesTr").glob("*__PT.nii.gz"):
        (tmp_path / "cohort" / "mr").mkdir(exist_ok=True)
        path.rename(tmp_path / "cohort" / "mr" / path.name.replace("__PT", ""))
    plugins.load([title], folder=tmp_path)
    files = write_centers(tmp_path / "centers", tmp_path / "cohort", SIZES)
    for path in files.values():
        own = {"layout": "hecktor_mr", "modalities": ["CT", "MR"], "plugins": [str(tmp_path / title)]}
        OmegaConf.save(OmegaConf.merge(OmegaConf.load(path), own), path)
    run = small_run(steps=["tumour_ctpet"], rounds=1)
    step = run.steps["tumour_ctpet"]
    said = yaml.safe_load(re.search(r'```yaml title="mr.yaml"\n(.*?)```', text, re.DOTALL)[1])
    parts = {name: PARTS[part["kind"]](**part) for name, part in said["adapter"]["parts"].items()}
    step.modalities, step.modes, step.starts_from, step.adapter = said["modalities"], [], None, Adapter(parts)
    step.view.intensities, step.centers, step.evaluate_at = said["view"]["intensities"], ["*"], ["*"]
    leader = federate(run, tmp_path / "run", files)
    [done] = leader.ledger.events("step_finished")
    state = leader.bank.get(done["key"])
    assert state["skip_mr/out.weight"].abs().sum() > 0  # zero until a case with an MR trains it
    assert set(scores(leader, "dsc_agg")) == {"CHUM", "CHUP", "HMR", "MDA", "pooled"}


def own_study(tmp_path, monkeypatch) -> str:
    """The page's file in the working directory, and the page's own command line."""
    text = (PAGES / "own-study.md").read_text()
    [(title, code)] = CODE.findall(text)
    (tmp_path / title).write_text(code)
    monkeypatch.chdir(tmp_path)
    [command] = re.findall(r"```\npython -m simulations compare (.*?)```", text, re.DOTALL)
    return command


def test_an_own_study_is_a_choice_whose_names_are_checked(tmp_path, monkeypatch):
    command = own_study(tmp_path, monkeypatch)
    run = compose_run(shlex.split(command))
    assert (run.study.kind, run.study.seeds) == ("seeds", [1, 2]) and type(run.study) is OPTIONS["seeds"]
    assert broken_rules(run) == [] and list(STUDIES)[-1] == "seeds"
    with pytest.raises(ConfigError, match=r"no study is called 'seed'.*Did you mean 'seeds'"):
        compose_run(["plugins=[own_study.py]", "study=seed"])
    with pytest.raises(ConfigError, match=r"no option 'seed' below study.*Did you mean 'seeds'"):
        compose_run(["plugins=[own_study.py]", "study=seeds", "study.seed=3"])


@pytest.mark.slow
def test_an_own_study_runs_to_its_page(tmp_path, monkeypatch, small_root):
    command = own_study(tmp_path, monkeypatch)
    small = [f"steps.tumour_ct.view.{key}=[{SIDE},{SIDE},{SIDE}]" for key in ("size", "window")]
    small += ["data=folder", f"data.root={small_root}", "~steps.tumour_ctpet", "steps.tumour_ct.rounds=1"]
    overrides = [*shlex.split(command), *small, "runtime.workers=1", f"out={tmp_path / 'runs'}"]
    assert main(["run", *overrides]) == 0  # as `compare` does
    found = json.loads((tmp_path / "runs" / "seeds" / "study.json").read_text())
    assert (tmp_path / "runs" / "seeds" / "report.html").exists()
    rows = found["tables"][0]["rows"]
    values = {seed: [row[-1] for row in rows if row[0] == seed] for seed in (1, 2)}
    assert values[1] and len(values[1]) == len(values[2]) and values[1] != values[2]


def forget_plugins(monkeypatch) -> None:
    """As in a new process."""
    for registry in (plugins.ADDED, plugins.LOADED):
        registry.clear()
    monkeypatch.setenv(plugins.INHERITED, "")
    loading.forget()


def test_commands_on_a_run_with_a_plugin_load_it_or_name_what_is_gone(page, small_centers, tmp_path, monkeypatch):
    from client.commands import predict
    from server.commands import promote, report
    from tests.helpers.small import write_cohort

    run = page("own-rule.md", step="tumour_ct")
    leader = federate(run, tmp_path / "run", small_centers)
    leader.folder.config.write_text(loading.run_to_yaml(run))
    [done] = leader.ledger.events("step_finished")
    folder, key = leader.folder.path, done["key"]

    forget_plugins(monkeypatch)
    assert report.run(Namespace(folder=folder)) == 0 and leader.folder.report.exists()
    forget_plugins(monkeypatch)
    assert promote.run(Namespace(folder=folder, lineage="tumour_ct", key=key[:8], reason="")) == 0
    assert "halfway" in plugins.ADDED["aggregation rule"]

    cohort = write_cohort(tmp_path / "cohort", {"CHUM": 1})
    given = ["--bank", str(folder), "--folder", str(cohort), "--out", str(tmp_path / "out")]
    forget_plugins(monkeypatch)
    with pytest.raises(BankError, match=r"'halfway'.*name your copy of its file: --plugin FILE\.py"):
        predict.run(parsed(predict, given))
    assert predict.run(parsed(predict, [*given, "--plugin", "own_rule.py"])) == 0
    assert list((tmp_path / "out").glob("CHUM-001__*.nii.gz"))

    (tmp_path / "own_rule.py").unlink()
    forget_plugins(monkeypatch)
    with pytest.raises(ConfigError, match=r"There is no plugin '.*own_rule\.py'"):
        report.run(Namespace(folder=folder))


def parsed(command, words: list[str]) -> Namespace:
    parser = ArgumentParser()
    command.arguments(parser)
    return parser.parse_args(words)
