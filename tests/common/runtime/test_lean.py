"""MONAI is imported without what nothing here uses, and everything else is found as before."""

from __future__ import annotations

import importlib
import sys

import pytest

from common.runtime.lean import Lean, import_less

MONAI = """
found = {}
for name in ("matplotlib.pyplot", "scipy.signal", "json"):
    try:
        found[name] = __import__(name) is not None
    except ImportError:
        found[name] = False
"""


@pytest.fixture
def monai(tmp_path, monkeypatch):
    """A package of MONAI's name that looks for others as it is imported; the real one is back after the test."""
    (tmp_path / "monai.py").write_text(MONAI)
    monkeypatch.syspath_prepend(tmp_path)
    for name in [n for n in sys.modules if n.partition(".")[0] in ("monai", "matplotlib") or n == "scipy.signal"]:
        monkeypatch.delitem(sys.modules, name)
    yield importlib.import_module("monai")
    sys.modules.pop("monai")


def test_monai_finds_neither_matplotlib_nor_signal_processing(monai):
    assert monai.found == {"matplotlib.pyplot": False, "scipy.signal": False, "json": True}


def test_after_monai_is_there_everything_is_found(monai):
    assert importlib.util.find_spec("matplotlib.pyplot") and importlib.util.find_spec("scipy.signal")
    assert Lean().find_spec("matplotlib", None) is None


def test_one_finder_is_enough():
    import_less()
    assert sum(isinstance(finder, Lean) for finder in sys.meta_path) == 1 and isinstance(sys.meta_path[0], Lean)


def test_what_is_used_of_monai_is_there():
    from monai.networks.nets.swin_unetr import BasicLayer
    from monai.networks.nets.transchex import BertLayer

    assert BasicLayer.__module__.startswith("monai.")
    with pytest.raises(Exception, match="transformers"):
        BertLayer()
