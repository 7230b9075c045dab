"""Kind: how one kind of frozen model is built and loaded, an entry of the registry or of a plugin."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from common.backbones.base import Backbone
    from common.config.run import BackboneSpec


@dataclass(frozen=True)
class Kind:
    """A kind of backbone.

    Args:
        build: the architecture, at weights from torch's global generator.
        load: puts a checkpoint's weights in; None where there is no checkpoint.
        example: a checkpoint to get, in words.
        reads: options of the spec that only some kinds read.
        licences: configuration -> SPDX identifier of that checkpoint's; absent: it depends on whose file it is.
    """

    build: Callable[[BackboneSpec], Backbone]
    load: Callable[[Backbone, str | Path], None] | None = None
    example: str = ""
    reads: frozenset[str] = frozenset()
    licences: Mapping[str, str] = field(default_factory=dict)
