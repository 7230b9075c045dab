"""The seven HECKTOR centers as the phantom sees them: sizes, scanners, fields of view and what each one records.

The figures are those of the 2022 training set (aggregates only). Grids are coarsened so that a case stays below
about 100^3 voxels: PET by 1.4 on every axis; CT slices of 1.5 mm by 2 and of 3 mm or more by 1.4, CT in plane from
0.98 mm to 3.5 mm (head-and-neck field) or 4.4 mm (whole-body field). The order between centers is the real one.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class CenterSpec:
    """One center's size, acquisition and record habits.

    Args:
        code, number: patient prefix and the 2022 table's CenterID.
        patients, with_rfs: real counts of 2022 (masks, and of these with a relapse endpoint).
        ct_spacing_mm, pet_spacing_mm: in plane and along z, after coarsening.
        ct_pixels, pet_pixels: in-plane size.
        whole_body: share of patients scanned to the pelvis instead of to the shoulders.
        ct_noise_hu: standard deviation of the CT noise.
        pet_fwhm_mm, pet_noise: PET resolution, and noise at SUV 1 (it grows with the square root of uptake).
        missing: column -> how many of the center's `patients` lack it; columns not named are complete.
        hpv_positive: share of HPV-positive patients.
        hazard: the center's own small shift of the log hazard.
    """

    code: str
    number: int
    patients: int
    with_rfs: int
    ct_spacing_mm: tuple[float, float]
    ct_pixels: int
    pet_spacing_mm: tuple[float, float]
    pet_pixels: int
    whole_body: float
    ct_noise_hu: float
    pet_fwhm_mm: float
    pet_noise: float
    hpv_positive: float
    hazard: float
    missing: dict[str, int] = field(default_factory=dict)


HABITS_NEVER_RECORDED = ("Tobacco", "Alcohol", "Performance status")
OTHER_HPV = 0.78  # what remains of 279 positive of 340 known once MDA (99 %) and CHUP (36 %) are taken out


def _no_habits(patients: int, **others: int) -> dict[str, int]:
    return dict.fromkeys(HABITS_NEVER_RECORDED, patients) | {k.replace("_", " "): v for k, v in others.items()}


CENTERS: tuple[CenterSpec, ...] = (
    CenterSpec(
        "CHUM", 1, 56, 56, (3.5, 3.0), 96, (5.6, 5.6), 68, 0.0, 14.0, 7.0, 0.10, OTHER_HPV, -0.10,
        _no_habits(56, HPV_status=34, Surgery=56),
    ),
    CenterSpec(
        "CHUP", 2, 72, 44, (4.4, 3.0), 76, (5.7, 2.84), 64, 1.0, 18.0, 5.5, 0.14, 0.36, 0.20,
        {"HPV status": 14, "Surgery": 72},
    ),
    CenterSpec(
        "CHUS", 3, 72, 72, (4.4, 4.2), 80, (5.6, 5.6), 68, 1.0, 20.0, 8.0, 0.12, OTHER_HPV, 0.05,
        _no_habits(72, HPV_status=39, Surgery=72),
    ),
    CenterSpec(
        "CHUV", 4, 53, 47, (3.9, 4.58), 88, (3.82, 4.58), 92, 0.68, 16.0, 5.0, 0.16, OTHER_HPV, 0.10,
        _no_habits(53, HPV_status=48),
    ),
    CenterSpec(
        "MDA", 5, 198, 197, (3.5, 4.58), 96, (7.66, 4.58), 48, 0.25, 12.0, 6.5, 0.08, 0.99, -0.10,
        {"Tobacco": 51, "Alcohol": 88, "Performance status": 27, "HPV status": 16},
    ),
    CenterSpec(
        "HGJ", 6, 55, 55, (3.5, 4.58), 96, (4.93, 4.58), 76, 0.0, 15.0, 7.5, 0.12, OTHER_HPV, 0.0,
        _no_habits(55, HPV_status=17),
    ),
    CenterSpec(
        "HMR", 7, 18, 18, (3.5, 4.58), 96, (4.93, 4.58), 76, 0.06, 15.0, 7.5, 0.12, OTHER_HPV, 0.15,
        _no_habits(18, HPV_status=16, Surgery=18) | {"Weight": 6},
    ),
)  # fmt: skip

HEAD_NECK_MM = 300.0  # z extent of a head-and-neck field; the real median at HGJ and HMR is 298 mm
WHOLE_BODY_MM = 500.0  # whole-body fields are really 850-1100 mm; shortened to keep files small
SMALLEST_CENTER = 3  # below three patients a center has neither a split nor a comparable pair


def center_sizes(scale: float) -> dict[str, int]:
    """Patients per center at a scale: the real sizes times `scale`, at least three each."""
    return {spec.code: max(SMALLEST_CENTER, round(spec.patients * scale)) for spec in CENTERS}
