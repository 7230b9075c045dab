"""Where a NIfTI file can hide a name: free-text fields, extensions, and the original file name inside gzip."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import nibabel as nib

from client.data.hecktor.tables import patient_id

FIELDS = ("descrip", "aux_file", "db_name", "intent_name")
TOOLS = re.compile(
    r"(|fsl.*|\d+(\.\d+)+.*|simpleitk.*|itk.*|dcm2nii.*|te=[\d.;a-z=: -]*|time=[\d.:;a-z= -]*|nibabel.*|3d slicer.*|"
    r"matlab.*|spm.*|afni.*|mrtrix.*|none|unknown)",
    re.IGNORECASE,
)
DICOM_CODE = 2


def identifying_fields(path: Path) -> dict[str, str]:
    """Place -> what is odd about it; the text itself is not repeated. Empty for a bare header or no NIfTI file."""
    found: dict[str, str] = {}
    try:
        header = nib.load(path).header
    except Exception:  # unreadable files are found elsewhere
        return found
    for name in FIELDS:
        text = _text(header, name)
        if not TOOLS.fullmatch(text):
            found[f"header field '{name}'"] = f"holds free text ({len(text)} characters)"
    for extension in getattr(header, "extensions", []):
        is_dicom = extension.get_code() == DICOM_CODE
        found["DICOM extension" if is_dicom else "header extension"] = f"holds {extension.get_sizeondisk()} bytes"
    name = gzip_name(path)
    if name and not _expected(name, path):
        found["compressed content"] = "remembers another file name"
    return found


def gzip_name(path: Path) -> str:
    """The original file name that gzip wrote into its own header; empty where there is none."""
    with path.open("rb") as file:
        start = file.read(512)
    if start[:2] != b"\x1f\x8b" or not start[3] & 0x08:
        return ""
    position = 10
    if start[3] & 0x04:
        position += 2 + int.from_bytes(start[10:12], "little")
    return start[position:].split(b"\0", 1)[0].decode("latin-1")


def _expected(name: str, path: Path) -> bool:
    """The file's own name, or one that begins with a code such as CHUM-001."""
    stem = Path(name).name.removesuffix(".gz")
    code = re.split(r"__|_ct|_pt|_gtvt|\.", stem)[0]
    return stem == path.name.removesuffix(".gz") or patient_id(code) is not None


def _text(header: Any, name: str) -> str:
    if name not in header:
        return ""
    return bytes(header[name].tobytes()).split(b"\0", 1)[0].decode("latin-1").strip()
