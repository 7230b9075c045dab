"""One digest for a checkout and its bundle, over what would run; archives made to mislead are refused."""

from __future__ import annotations

import io
import zipfile

import pytest
from flwr.cli.build import build_fab_from_files

from common.errors import WireError
from common.runtime.release import CONTENT, bundle_digest, own_digest, release_files


def genuine() -> bytes:
    return build_fab_from_files(dict(release_files()))[0]


def repacked(bundle: bytes, *, change=None, extra=(), compression=zipfile.ZIP_STORED) -> bytes:
    """The same members in another archive; ``change`` edits one of them."""
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(bundle)) as old, zipfile.ZipFile(stream, "w", compression) as new:
        for name in reversed(old.namelist()):
            content = old.read(name)
            new.writestr(name, content if change is None else change(name, content))
        for name, content in extra:
            new.writestr(name, content)
    return stream.getvalue()


def test_a_bundle_has_its_checkouts_digest_however_it_is_packed():
    bundle = genuine()
    assert bundle_digest(bundle) == own_digest()
    assert repacked(bundle) != bundle
    assert bundle_digest(repacked(bundle)) == own_digest()


@pytest.mark.parametrize("name", ["client/app.py", "common/protocol/wire.py", "configs/config.yaml", "pyproject.toml"])
def test_one_changed_file_changes_the_digest(name):
    def change(member, content):
        return content.replace(b"server", b"sorver", 1) + b"\n" if member == name else content

    assert bundle_digest(repacked(genuine(), change=change)) != own_digest()


def test_the_manifests_layout_does_not_count_but_its_values_do():
    spaced = repacked(genuine(), change=lambda n, c: b"\n\n" + c if n == "pyproject.toml" else c)
    assert bundle_digest(spaced) == own_digest()
    pointed = repacked(genuine(), change=lambda n, c: c.replace(b"client.app:app", b"client.axp:app"))
    assert bundle_digest(pointed) != own_digest()


def test_an_added_file_changes_the_digest_and_the_listing_inside_does_not_hide_it():
    added = repacked(genuine(), extra=[("pandas.py", b"print('here')")])
    assert bundle_digest(added) != own_digest()
    silent = repacked(genuine(), change=lambda n, c: b"" if n == CONTENT else c)
    assert bundle_digest(silent) == own_digest()


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", ["client/app.py", "/etc/passwd", "../outside.py", "a/../../b.py"])
def test_repeated_and_outside_names_are_refused(name):
    with pytest.raises(WireError, match="not plain"):
        bundle_digest(repacked(genuine(), extra=[(name, b"pass")]))


def test_what_is_no_archive_is_refused():
    with pytest.raises(WireError, match="is not a Flower App Bundle"):
        bundle_digest(b"PK, but no")
