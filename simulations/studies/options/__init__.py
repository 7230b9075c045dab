"""Options of every study, and the steps that some generate from theirs: what composing a run needs of studies.

Nothing here imports torch, so that a mistyped study is answered at once; `simulations.studies.run` has what they do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from common.config.compose.registry import Node
from common.plugins import Registry
from simulations.studies.options import continual, pemma_fusion, unicon_prognosis, unicon_segmentation
from simulations.studies.options.continual import ContinualMethodsStudy, ContinualVlmStudy
from simulations.studies.options.curricula import MedcossStudy, MedseqftStudy
from simulations.studies.options.pemma_fusion import PemmaFusionStudy
from simulations.studies.options.privacy import PrivacyStudy
from simulations.studies.options.prognosis import PhantomPrognosisStudy, Sts7PrognosisStudy, SurvivalTableStudy
from simulations.studies.options.rules import AggregationStudy, AttacksStudy
from simulations.studies.options.stages import Stage, steps_node
from simulations.studies.options.unicon_prognosis import UniconPrognosisStudy
from simulations.studies.options.unicon_segmentation import UniconSegmentationStudy

OPTIONS: Registry[type] = Registry(
    "study",
    "spec",
    {
        "aggregation": AggregationStudy,
        "attacks": AttacksStudy,
        "continual_methods": ContinualMethodsStudy,
        "continual_vlm": ContinualVlmStudy,
        "medcoss": MedcossStudy,
        "medseqft": MedseqftStudy,
        "pemma_fusion": PemmaFusionStudy,
        "phantom_prognosis": PhantomPrognosisStudy,
        "privacy": PrivacyStudy,
        "sts7_prognosis": Sts7PrognosisStudy,
        "survival_table": SurvivalTableStudy,
        "unicon_prognosis": UniconPrognosisStudy,
        "unicon_segmentation": UniconSegmentationStudy,
    },
)
STAGES: dict[str, Callable[[], dict[str, Stage]]] = {  # of studies whose steps are generated
    "continual_methods": continual.methods_stages,
    "continual_vlm": continual.vlm_stages,
    "pemma_fusion": pemma_fusion.stages,
    "unicon_prognosis": unicon_prognosis.stages,
    "unicon_segmentation": unicon_segmentation.stages,
}


def nodes() -> Iterator[Node]:
    """Every study's options and generated steps, for configs/study to choose from."""
    for kind, options in OPTIONS.items():
        yield Node("schema/study", kind, options)
    for kind, stages in STAGES.items():
        yield Node("schema/study_steps", kind, steps_node(stages()), package="_global_")
