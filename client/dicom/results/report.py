"""Numbers as a DICOM Structured Report (Comprehensive SR, template 1500) by highdicom: a risk with its curve, classes.

Every group of measurements names the adapter and its test score, and says that it is for research. A point of the
curve is a measurement at a time point: so many days after the image.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import highdicom as hd
from highdicom import sr
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from client.dicom.results.origin import MANUFACTURER, RESEARCH, Author, Origin

OWN = "99FEDGRAFT"  # a private coding scheme (PS3.16 8): no standard code says these
RISK = Code("risk", OWN, "Risk of relapse, larger is earlier")
CURVE = Code("relapse_free", OWN, "Predicted probability of being free of relapse")
USE, FOR_RESEARCH = Code("use", OWN, "Intended use"), Code("research", OWN, RESEARCH)
IMAGED = Code("imaged", OWN, "Acquisition of the images")
SERIES_NUMBER = 9003


def has_report(answer: Mapping[str, Any]) -> bool:
    """Whether an answer holds numbers that a report shows."""
    return "risk" in answer or "probabilities" in answer


def report(answer: Mapping[str, Any], origin: Origin, author: Author) -> Dataset:
    """The report of an answer with ``risk`` (and ``days``, ``relapse_free``) or ``probabilities``."""
    device = sr.DeviceObserverIdentifyingAttributes(
        uid=hd.UID(), name=author.name, manufacturer_name=MANUFACTURER, model_name=author.software
    )
    observer = sr.ObserverContext(observer_type=codes.DCM.Device, observer_identifying_attributes=device)
    content = sr.MeasurementReport(
        observation_context=sr.ObservationContext(observer_device_context=observer),
        procedure_reported=codes.SCT.ComputedTomography,
        imaging_measurements=_groups(answer, author),
        title=codes.DCM.ImagingMeasurementReport,
    )
    return sr.ComprehensiveSR(
        evidence=origin.images,
        content=content[0],
        series_instance_uid=hd.UID(),
        series_number=SERIES_NUMBER,
        sop_instance_uid=hd.UID(),
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=author.name,
        software_versions=author.software,
        series_description=f"{author.name}: research use"[:64],
        is_complete=True,
        is_final=False,
        is_verified=False,
    )


def _groups(answer: Mapping[str, Any], author: Author) -> list[sr.MeasurementsAndQualitativeEvaluations]:
    if "probabilities" in answer:
        classes = enumerate(answer["probabilities"].items(), start=1)
        found = [_measured(_class(n, name), value) for n, (name, value) in classes]
        return [_group("classes", found, author)]
    points = zip(answer.get("days", ()), answer.get("relapse_free", ()), strict=True)
    curve = [_group(f"day {day:g}", [_measured(CURVE, value)], author, day=day) for day, value in points]
    return [_group("risk", [_measured(RISK, answer["risk"])], author), *curve]


def _group(
    name: str, measured: list[sr.Measurement], author: Author, *, day: float | None = None
) -> sr.MeasurementsAndQualitativeEvaluations:
    algorithm = sr.AlgorithmIdentification(
        name=author.name,
        version=author.software,
        parameters=[f"{key}: {value}" for key, value in author.parameters.items()],
        family=codes.DCM.ArtificialIntelligence,
        manufacturer=MANUFACTURER,
    )
    return sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(uid=hd.UID(), identifier=f"{author.lineage} {name}"),
        time_point_context=None if day is None else _at(day),
        algorithm_id=algorithm,
        measurements=measured,
        qualitative_evaluations=[sr.QualitativeEvaluation(name=USE, value=FOR_RESEARCH)],
    )


def _at(day: float) -> sr.TimePointContext:
    offset = sr.LongitudinalTemporalOffsetFromEvent(value=float(day), unit=codes.UCUM.Day, event_type=IMAGED)
    return sr.TimePointContext(time_point=f"{day:g} days after the image", temporal_offset_from_event=offset)


def _class(number: int, name: str) -> Code:
    return Code(f"class_{number}", OWN, f"Probability of {name}"[:64])


def _measured(name: Code, value: float) -> sr.Measurement:
    return sr.Measurement(name=name, value=float(value), unit=codes.UCUM.NoUnits)  # no numpy numbers: TypeError
