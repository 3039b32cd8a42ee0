"""What a suite may say. ``schema.json`` beside this file is made of these models; a test keeps them equal."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from koda_audit.gates.gate import Gate, gate_of
from koda_audit.settings import AtLeastOne, Expected, Positive, Settings, Some
from koda_audit.tasks.benchmarks import RetrievalSettings
from koda_audit.tasks.discrepancy import DiscrepancySettings
from koda_audit.tasks.gap import GapSettings
from koda_audit.tasks.gap_robustness import GapRobustnessSettings
from koda_audit.tasks.similarity import SimilaritySettings


def _file_name(text: str) -> str:
    if not re.fullmatch(r"\w[\w.+-]{0,79}", text) or ".." in text:
        raise ValueError("a name has letters, digits, '_', '-', '+' and single dots, 80 characters at most")
    return text


def _split(text: str) -> str:
    if not re.fullmatch(r"[\w.\[\]:%+-]{1,80}", text) or ".." in text:
        raise ValueError("a split is one word, such as test or train")
    return text


Name = Annotated[str, AfterValidator(_file_name)]
Split = Annotated[str, AfterValidator(_split)]
Text = Annotated[str, Field(min_length=1, max_length=1000)]
Pair = Annotated[list[str], Field(min_length=2, max_length=2)]
PAIRS = "'all', or a list of [reference, model] with names from models"
ON = "'all', or a list of names from datasets"
WHICH = "'all', or a list of 'none' and names from alignments"
FIT_ON = "DATASET or DATASET:SPLIT"
SOURCE = "who published it, and where"
Pairs = Annotated[Literal["all"] | Annotated[list[Pair], Some], Field(description=PAIRS), Expected(PAIRS)]
On = Annotated[Literal["all"] | Annotated[list[str], Some], Field(description=ON), Expected(ON)]
Which = Annotated[Literal["all"] | Annotated[list[str], Some], Field(description=WHICH), Expected(WHICH)]
Benchmarks = Literal["zeroshot_classification", "zeroshot_retrieval", "linear_probe", "clustering", "side_effects"]


class Model(Settings):
    """An open_clip name with a tag or checkpoint file, ``local-dir:``, ``hf-hub:``, or ``py:module:function``."""

    model: Text
    pretrained: str = ""
    model_type: str = "open_clip"


class Data(Settings):
    """A dataset by the host's name, or one of its collections.

    ``task`` says whether it has captions or classes, ``only`` which tasks of the benchmark run on it; default: all that
    can. ``classes_of`` is another dataset of the suite with the same sample ids: comparisons then tell accuracy on its
    classes as well.
    """

    dataset: Text
    root: Text = "root"
    split: Split = "test"
    task: Literal["zeroshot_classification", "zeroshot_retrieval"] | None = None
    train_split: Split = "train"
    language: Text | None = None
    annotation_file: Text | None = None
    classname_file: Text | None = None
    template_file: Text | None = None
    classes_of: Text | None = None
    only: Annotated[list[Benchmarks], Some] | None = None


class OfPairs(Settings):
    """On which datasets, and of which models, a task of two models is run."""

    pairs: Pairs = "all"
    on: On = "all"


class OfModels(Settings):
    """On which datasets, and under which alignments, a task of one model is run; default: those of the benchmark."""

    on: On = "all"
    alignments: Which | None = None


class Discrepancy(DiscrepancySettings, OfPairs):
    """The task koda_discrepancy."""


class Similarity(SimilaritySettings, OfPairs):
    """The task koda_similarity."""


class Gap(GapSettings, OfModels):
    """The task koda_modality_gap, and koda_gap_robustness on the same data where ``robustness`` is given."""

    robustness: GapRobustnessSettings | None = None


class Alignment(BaseModel):
    """An alignment, post hoc or trained; all keys but these are parameters of its operator."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)
    __pydantic_extra__: dict[str, Annotated[Any, Field(description="a parameter of the operator")]]

    operator: Text
    fit_on: Annotated[str | None, Field(description=FIT_ON, pattern=r"^[^:]+(:[^:]+)?$"), Expected(FIT_ON)] = None
    mode: Annotated[
        Literal["feature", "tower"], Field(description="map finished embeddings, or train the towers of each model")
    ] = "feature"
    transductive: bool = False
    gallery: Literal["image", "text", "class_text"] | None = None

    @property
    def parameters(self) -> dict[str, Any]:
        return dict(self.__pydantic_extra__ or {})


class Benchmark(RetrievalSettings):
    """Which numbers of each model, dataset and alignment."""

    tasks: Annotated[list[Benchmarks], Some]
    on: On = "all"
    alignments: Which = "all"
    clusters: AtLeastOne | None = None
    clustering_protocol: Literal["default", "grassucci2026"] = "default"
    probe_C: Positive | None = None


class Published(Settings):
    """A figure that somebody published of a model as it is, shown beside ours; ``source`` says who, and where."""

    metric: Text
    dataset: Text
    model: Text
    value: float = Field(allow_inf_nan=False)
    source: Annotated[str, Field(description=SOURCE, pattern=r"\S", max_length=1000), Expected(SOURCE)]


class Suite(Settings):
    """A whole suite. ``tasks``: those of other packages, each with its settings, and where it is run."""

    suite: Name
    models: Annotated[dict[Name, Model], Some]
    datasets: Annotated[dict[Name, Data], Some]
    discrepancy: Discrepancy | None = None
    similarity: Similarity | None = None
    gap: Gap | None = None
    tasks: dict[str, dict[str, Any]] = Field(default={})
    alignments: dict[Name, Alignment] = Field(default={})
    benchmark: Benchmark | None = None
    gates: list[Annotated[Gate, BeforeValidator(gate_of)]] = Field(default=[])
    published: list[Published] = Field(default=[])
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")] = "auto"
    batch_size: Annotated[int, Field(ge=1, le=1_000_000)] = 64
    num_workers: Annotated[int, Field(ge=0, le=1024)] = 4
    dtype: Literal["fp32", "host"] = "fp32"
    language: Text = "en"
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = 0
