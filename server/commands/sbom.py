"""Write a software bill of materials (CycloneDX) of this checkout: libraries, frozen model, adapters, and licences.

An adapter is under the licence of the weights that it was learned on: on CT-CLIP's, CC BY-NC-SA 4.0.
"""

from __future__ import annotations

from common.materials.command import arguments, run

__all__ = ["EXAMPLE", "arguments", "run"]

EXAMPLE = "python -m server sbom --out sbom.json --licences licences.md\n  python -m server sbom federation/runs/first"
