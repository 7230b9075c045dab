"""python -m simulations options: a run's options and those of studies and faults, as a table and as Markdown."""

from __future__ import annotations

import pytest

from common.errors import ConfigError
from simulations.__main__ import main
from simulations.options import options, options_markdown


def test_every_option_of_studies_and_faults_has_a_meaning_too():
    found = options()
    assert [option.path for option in found if not option.meaning] == []
    assert {"study.arms", "faults.NAME.probability", "compare.draws"} <= {option.path for option in found}


def test_a_studys_default_is_its_own_and_not_that_of_a_view():
    spacing = {option.kinds: option.default for option in options("study.view.spacing_mm")}
    assert spacing["sts7_prognosis"] == "[3.0, 3.0, 3.0]"
    [sized] = [default for kinds, default in spacing.items() if "pemma_fusion" in kinds]
    assert sized == "[6.0, 6.0, 6.0]"


def test_the_page_has_a_row_for_each_option_and_the_console_the_asked_ones(capsys):
    found = options("runtime")
    page = options_markdown(found)
    assert page.startswith("## runtime\n") and page.count("\n| `runtime.") == len(found)
    assert main(["options", "steps.relapse.training", "--markdown"]) == 0
    printed = capsys.readouterr().out
    assert "| `steps.STEP.training.learning_rate` |  | `0.001` |  | AdamW's |" in printed and "runtime" not in printed
    assert main(["options", "runtime"]) == 0
    assert "bf16 autocast" in capsys.readouterr().out


def test_an_unknown_beginning_is_answered_with_the_known_ones():
    with pytest.raises(
        ConfigError, match=r"No option begins with 'runtim\.x'; options begin with age_cuts, backbone, compare"
    ):
        options("runtim.x")


def test_an_options_last_word_finds_it_wherever_it_stands():
    found = {option.path for option in options("learning_rate")}
    assert {"steps.STEP.training.learning_rate", "study.learning_rate"} <= found
    assert all(path.endswith(".learning_rate") for path in found)
