"""Which code is this: one digest for a checkout and for the Flower App Bundle that was built from it.

A bundle is an archive, and archives of the same files may differ in their bytes (compression libraries differ). The
digest is over what would run: every member's name and content, and the manifest's meaning.
"""

from __future__ import annotations

import hashlib
import io
import json
import tomllib
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType

from common.errors import WireError
from common.text import one_line

ROOT = Path(__file__).resolve().parents[2]
MANIFEST, CONTENT = "pyproject.toml", ".info/CONTENT"
MOST_PROTOCOL = 10_000
PACKAGES = ("server", "client", "common", "configs")
MAX_UNPACKED_BYTES = 64 << 20


def release_files(root: Path = ROOT, plugins: Mapping[str, Path] = MappingProxyType({})) -> dict[str, Path]:
    """Name -> file of everything that Flower may put into this checkout's bundle, and of plugins beside it."""
    found = {
        path.relative_to(root).as_posix(): path
        for package in PACKAGES
        for path in sorted((root / package).rglob("*"))
        if path.suffix in (".py", ".yaml") and "__pycache__" not in path.parts
    }
    return {
        **found,
        **plugins,
        MANIFEST: root / MANIFEST,
        **{n: root / n for n in (".gitignore",) if (root / n).exists()},
    }


def version(root: Path = ROOT) -> str:
    """As pyproject.toml has it: code runs from the checkout and is installed nowhere."""
    return str(tomllib.loads((root / MANIFEST).read_text())["project"]["version"])


@dataclass(frozen=True)
class Handshake:
    """What a release says of itself where it meets another: its version, and the number of its protocol."""

    version: str
    protocol: int

    def __str__(self) -> str:
        return f"{self.version} (protocol {self.protocol})"


def own_handshake(root: Path = ROOT) -> Handshake:
    """This checkout's."""
    return _handshake((root / MANIFEST).read_bytes())


def bundle_handshake(bundle: bytes) -> Handshake:
    """What a bundle says of itself in its manifest; nothing else of it is looked at. Raises WireError."""
    try:
        with zipfile.ZipFile(io.BytesIO(bundle)) as archive:
            _check_members(archive.infolist())
            return _handshake(archive.read(MANIFEST))
    except (zipfile.BadZipFile, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise WireError(f"A bundle does not say which release it is ({type(error).__name__}).") from error


def _handshake(manifest: bytes) -> Handshake:
    said = tomllib.loads(manifest.decode())
    number = said["tool"].get("fedgraft", {}).get("protocol", 0)  # releases before 1 have none
    if type(number) is not int or not 0 <= number < MOST_PROTOCOL:
        raise ValueError("no number of a protocol")
    return Handshake(one_line(said["project"]["version"], 40), number)


def own_digest(root: Path = ROOT, plugins: Mapping[str, Path] = MappingProxyType({})) -> str:
    """The digest of this checkout's code, as Flower would bundle it now.

    Args:
        plugins: `common.plugins.files_of` what this side's configuration names: the other side must name the same.
    """
    return _digest(root, tuple((name, path, path.read_bytes()) for name, path in sorted(plugins.items())))


@lru_cache(maxsize=4)
def _digest(root: Path, plugins: tuple[tuple[str, Path, bytes], ...]) -> str:
    from flwr.cli.build import build_fab_from_files

    return bundle_digest(build_fab_from_files(dict(release_files(root, {name: path for name, path, _ in plugins})))[0])


def bundle_digest(bundle: bytes) -> str:
    """The digest of what a bundle holds; nothing of it is written to disk or run.

    Raises:
        WireError: it is no bundle, or its archive is made to mislead (repeated, absolute or huge members).
    """
    try:
        with zipfile.ZipFile(io.BytesIO(bundle)) as archive:
            members = [member for member in archive.infolist() if member.filename != CONTENT]
            _check_members(members)
            listing = {member.filename: _meaning(member.filename, archive.read(member)) for member in members}
    except (
        zipfile.BadZipFile,
        tomllib.TOMLDecodeError,
        UnicodeDecodeError,
        RuntimeError,
        NotImplementedError,
    ) as error:
        raise WireError(f"This is not a Flower App Bundle: {error}.") from error
    return hashlib.sha256(json.dumps(listing, sort_keys=True).encode()).hexdigest()


def _check_members(members: list[zipfile.ZipInfo]) -> None:
    names = [member.filename for member in members]
    repeated = len(names) - len(set(names))
    strange = [name for name in names if name.startswith(("/", "\\")) or ".." in name.split("/")]
    size = sum(member.file_size for member in members)
    if repeated or strange or size > MAX_UNPACKED_BYTES:
        raise WireError(
            f"A bundle's archive is not plain: {repeated} repeated names, {len(strange)} outside its folder, {size} "
            "bytes."
        )


def _meaning(name: str, content: bytes) -> str:
    """A member's hash; the manifest's is over its parsed values, because Flower rewrites it when it builds."""
    if name == MANIFEST:
        parsed = tomllib.loads(content.decode())
        parsed.get("tool", {}).get("flwr", {}).pop("federations", None)
        content = json.dumps(parsed, sort_keys=True, default=str).encode()
    return hashlib.sha256(content).hexdigest()
