"""From a layout's patterns to cases: which file is whose, whose case is which center's, and all that does not add up.

Sentences count cases; their names go to the logger ``fedgraft.center``, which stays on site.
"""

from __future__ import annotations

import difflib
import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from client.data.case import LABEL, Case
from client.data.folders import files_below
from client.data.hecktor.reading import TEXT
from client.data.hecktor.tables import Rows, patient_id, read_tables
from client.data.layouts.centers import Found, centers_of, leave_out
from client.data.layouts.layout import Layout, Options

log = logging.getLogger("fedgraft.center")

REPORT = "report"
OUTCOME = "rfs"  # of the outcomes that a mapping declares
_TOKEN = re.compile(r"(\{case\}|\{center\}|\*)")


def cases_of(folder: Path, layout: Layout, center: str | None, options: Options) -> list[Case]:
    """The cases that the layout finds in a folder (of one center, if named), sorted by patient.

    Everything that is wrong goes to ``options.problems``.
    """
    found = _scan(folder, layout, options.problems)
    complete = _with_reference(_single(found, options), layout, options)
    centers = centers_of(folder, complete, layout.center, center, options)
    own = [one for one in complete if id(one) in centers and center in (None, centers[id(one)])]
    if not own and not options.problems:
        options.problems.append(_nobody(folder, layout, center, sorted(set(centers.values()))))
    rows = _rows(folder, options)
    cases = [_case(one, centers[id(one)], layout, rows, options) for one in own]
    return sorted(cases, key=lambda case: case.patient)


# ------------------------------------------------------------------------------------------------------------- files


def _scan(folder: Path, layout: Layout, problems: list[str]) -> list[Found]:
    """Every case that a pattern names, with its files."""
    paths = files_below(folder)
    names = {path: path.relative_to(folder).as_posix() for path in paths}
    wanted = {**layout.images, **_given(LABEL, layout.label), **_given(REPORT, layout.report)}
    found: dict[tuple[str, str | None], Found] = {}
    placeless: list[tuple[str, str, Path]] = []
    for role, pattern in wanted.items():
        hits = [(path, match) for path in paths if (match := expression(pattern).fullmatch(names[path]))]
        if not hits:
            problems.append(
                f"No file below '{folder}' fits the {role} pattern '{pattern}' of {layout.name}; correct the "
                "pattern, or "
                "take it out where nobody has such files."
            )
        for path, match in hits:
            place = match.groupdict().get("center")
            if place is None and any("{center}" in other for other in layout.images.values()):
                placeless.append((role, match["case"], path))
                continue
            one = found.setdefault((match["case"], place), Found(match["case"], place))
            one.files.setdefault(role, []).append(path)
    for role, name, path in placeless:  # a label folder without centers beside images in centers' folders
        for one in [one for (case, _), one in found.items() if case == name]:
            one.files.setdefault(role, []).append(path)
    return list(found.values())


def _given(role: str, pattern: str | None) -> dict[str, str]:
    return {} if pattern is None else {role: pattern}


def expression(pattern: str) -> re.Pattern[str]:
    """A path pattern as a regular expression; a placeholder that stands twice means the same both times."""
    parts, seen = [], set()
    for token in _TOKEN.split(pattern):
        name = token.strip("{}")
        if token == "*":
            parts.append("[^/]*")
        elif token in ("{case}", "{center}"):
            parts.append(f"(?P={name})" if name in seen else f"(?P<{name}>[^/]+?)")
            seen.add(name)
        else:
            parts.append(re.escape(token))
    return re.compile("".join(parts))


def _single(found: Sequence[Found], options: Options) -> list[Found]:
    """The cases without several files of one kind: which of them counts cannot be told."""
    by_role: dict[str, list[str]] = {}
    for one in found:
        for role, paths in one.files.items():
            if len(paths) > 1:
                by_role.setdefault(role, []).append(one.name)
    for role, names in by_role.items():
        remedy = "keep one of each, or make the pattern narrower"
        leave_out(names, len(found), options, what=f"several {role} files", remedy=remedy)
    return [one for one in found if all(len(paths) == 1 for paths in one.files.values())]


def _with_reference(found: list[Found], layout: Layout, options: Options) -> list[Found]:
    lacking = [one.name for one in found if layout.reference not in one.files]
    if lacking and len(lacking) < len(found):
        what = f"no {layout.reference} image, whose grid the others are read on,"
        remedy = "add it, remove the case, or name another modality as the reference"
        leave_out(lacking, len(found), options, what=what, remedy=remedy)
    return [one for one in found if layout.reference in one.files]


# ------------------------------------------------------------------------------------------------------------- cases


def _nobody(folder: Path, layout: Layout, center: str | None, others: list[str]) -> str:
    if center is None or not others:
        return f"No case was found under '{folder}' by {layout.name}; check data.root and the patterns."
    close = difflib.get_close_matches(center, others, n=1)
    hint = f" Did you mean '{close[0]}'?" if close else ""
    return f"Center '{center}' has no case under '{folder}'; centers there: {', '.join(others)}.{hint}"


def _rows(folder: Path, options: Options) -> Rows:
    """Records and outcomes of the tables that a mapping fits; none without a table."""
    if options.mapping is None and not any(path.suffix.lower() in TEXT for path in files_below(folder)):
        return Rows()
    rows = read_tables(folder, mapping=options.mapping)
    options.problems += rows.stopping
    return rows


def _case(one: Found, center: str, layout: Layout, rows: Rows, options: Options) -> Case:
    own = one.place is None or one.name.startswith(one.place)
    patient = one.name if own else f"{one.place}-{one.name}"  # the same name may stand in two centers' folders
    key = _row_of(one.name, center, rows)
    days, event = rows.outcome(key, OUTCOME) or (None, None)
    return Case(
        patient=patient,
        center=center,
        images={name: one.files[name][0] for name in layout.images if name in one.files},
        label=one.files[LABEL][0] if LABEL in one.files else None,
        record=dict(rows.fields.get(key, {})),
        days=days,
        event=event,
        findings=None,
        report=_text(one.name, one.files.get(REPORT, []), options),
        reference=layout.reference,
        structures=layout.structures,
        ignore=layout.ignore,
        untold=tuple(rows.untold.get(OUTCOME, ())),
    )


def _row_of(name: str, center: str, rows: Rows) -> str:
    """The key of a case's row: tables write CHUM-001, the center and a name of its own, or the name alone."""
    known: Mapping[str, object] = rows.fields
    parsed = patient_id(name)
    candidates = [*([parsed[0]] if parsed else []), f"{center}/{name}", name]
    return next((key for key in candidates if key in known), name)


def _text(name: str, paths: list[Path], options: Options) -> str | None:
    """A report's text; none, which is told, where its file is no text: a word with a replaced letter is another one."""
    if not paths:
        return None
    try:
        content = paths[0].read_bytes()
        text = content.decode("utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except (OSError, UnicodeError) as error:
        log.warning("case=%s report cannot be read: %s", name, type(error).__name__)
        options.odd.append("A report is no UTF-8 text and counts as absent; export it again.")
        return None
    return text.strip()
