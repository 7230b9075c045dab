"""SBOM: fedgraft, its libraries and the weights beside it as CycloneDX 1.6, and the same as a list of licences.

Written from what the installed packages say of themselves, by the standard's JSON schema; a test checks it against that
schema. https://cyclonedx.org/docs/1.6/json/
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from typing import Any

from common.materials.libraries import Library
from common.materials.licences import OWN
from common.materials.weights import Weights

SPECIFICATION = "1.6"
NAMESPACE = uuid.UUID("6f1d9a52-6d0f-4e4c-9b57-0e3c5a1c9f11")  # of serial numbers: equal contents have equal ones
Document = dict[str, Any]


def sbom(
    libraries: Sequence[Library], weights: Sequence[Weights], *, version: str, release: str, time: str
) -> Document:
    """The bill of materials as JSON.

    Args:
        version, release: fedgraft's, and the digest of its code (`common.runtime.release`).
        time: UTC, as in 2026-11-28T12:00:00Z.
    """
    own = f"pkg:generic/fedgraft@{version}"
    components = [_library(one) for one in libraries] + [_weights(one) for one in weights]
    by_name = {one.name: one.purl for one in libraries}
    needs = [{"ref": one.purl, "dependsOn": [by_name[n] for n in one.needs if n in by_name]} for one in libraries]
    stands = [{"ref": _ref(one), "dependsOn": _below(one, weights)} for one in weights]
    everything = [one["bom-ref"] for one in components]
    content = {
        "components": components,
        "dependencies": [{"ref": own, "dependsOn": everything}, *needs, *stands],
    }
    serial = uuid.uuid5(NAMESPACE, json.dumps([own, release, content], sort_keys=True))
    return {
        "bomFormat": "CycloneDX",
        "specVersion": SPECIFICATION,
        "serialNumber": f"urn:uuid:{serial}",
        "version": 1,
        "metadata": {
            "timestamp": time,
            "component": {
                "type": "application",
                "bom-ref": own,
                "name": "fedgraft",
                "version": version,
                "licenses": [{"license": {"id": OWN}}],
                "properties": [{"name": "fedgraft:release", "value": release}],
            },
        },
        **content,
    }


def licence_rows(libraries: Sequence[Library], weights: Sequence[Weights]) -> list[tuple[str, str, str]]:
    """(what, version or digest, licence): weights first, then libraries by name."""
    rows = [(one.name, one.digest[:12], one.licence.sentence) for one in weights]
    return rows + [(one.name, one.version, one.licence) for one in libraries]


def _library(one: Library) -> Document:
    licence = {"expression": one.licence} if one.is_expression else {"license": {"name": one.licence}}
    return {
        "type": "library",
        "bom-ref": one.purl,
        "name": one.name,
        "version": one.version,
        "purl": one.purl,
        "licenses": [licence],
    }


def _weights(one: Weights) -> Document:
    known = {"id": one.licence.spdx} if one.licence.spdx else {"name": "that of whoever made the file"}
    hashes = {"hashes": [{"alg": "SHA-256", "content": one.digest}]} if one.digest else {}
    return {
        "type": "machine-learning-model",
        "bom-ref": _ref(one),
        "name": one.name,
        "description": one.licence.sentence,
        **hashes,
        "licenses": [{"license": known}],
    }


def _ref(one: Weights) -> str:
    return f"weights:{one.name.replace(' ', '-')}:{one.digest[:16] or 'shipped'}"


def _below(one: Weights, weights: Sequence[Weights]) -> list[str]:
    """The frozen model that an adapter stands on."""
    return [_ref(other) for other in weights if one.base and not other.base and other.digest == one.base]
