"""What a suite may say. ``schema.json`` beside this file is made of these models; a test keeps them equal."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from koda_audit.gates.gate import Gate, gate_of


def _file_name(text: str) -> str:
    if not re.fullmatch(r"\w[\w.+-]{0,79}", text) or ".." in text:
        raise ValueError("a name has letters, digits, '_', '-', '+' and single dots, 80 characters at most")
    return text


def _distinct(values: list[Any]) -> list[Any]:
    twice = next((value for place, value in enumerate(values) if value in values[:place]), None)
    if twice is not None:
        raise ValueError(f"{twice} is listed twice")
    return values


def _split(text: str) -> str:
    if not re.fullmatch(r"[\w.\[\]:%+-]{1,80}", text) or ".." in text:
        raise ValueError("a split is one word, such as test or train")
    return text


def _halves(number: int) -> int:
    if number == 1:
        raise ValueError("give at least 2, whose spread is the error of a stability, or 0 for none")
    return number


Name = Annotated[str, AfterValidator(_file_name)]
Split = Annotated[str, AfterValidator(_split)]
Text = Annotated[str, Field(min_length=1, max_length=1000)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
AtLeastOne = Annotated[int, Field(ge=1, le=2**31)]
Some = Field(min_length=1)
Distinct = AfterValidator(_distinct)
Pair = Annotated[list[str], Field(min_length=2, max_length=2)]
Pairs = Annotated[
    Literal["all"] | Annotated[list[Pair], Some],
    Field(description="'all', or a list of [reference, model] with names from models"),
]
On = Annotated[
    Literal["all"] | Annotated[list[str], Some], Field(description="'all', or a list of names from datasets")
]
Which = Annotated[
    Literal["all"] | Annotated[list[str], Some],
    Field(description="'all', or a list of 'none' and names from alignments"),
]
Benchmarks = Literal["zeroshot_classification", "zeroshot_retrieval", "linear_probe", "clustering", "side_effects"]


class Part(BaseModel):
    """Unknown keys and other types are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, protected_namespaces=())


class Model(Part):
    """An open_clip name with a tag or checkpoint file, ``local-dir:``, ``hf-hub:``, or ``py:module:function``."""

    model: Text
    pretrained: str = ""
    model_type: str = "open_clip"


class Data(Part):
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


class Discrepancy(Part):
    """Groups of samples that one model clusters and the other does not, both ways."""

    pairs: Pairs = "all"
    on: On = "all"
    modality: Literal["joint", "image", "text"] = "joint"
    kernel: Literal["rbf", "cosine", "polynomial"] = "rbf"
    features: Literal["auto", "exact", "random"] = "auto"
    n_features: AtLeastOne = 3000
    directions: AtLeastOne | None = None
    epsilon: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] | None = None
    preset: Literal["paper"] | None = None
    halves: Annotated[int, Field(ge=0, le=10_000), AfterValidator(_halves)] = 25
    min_stability: Share = 0.7
    floor: Literal["batch", "none"] = "batch"


class Similarity(Part):
    """How alike two models represent the same samples; rows are brought to length 1."""

    pairs: Pairs = "all"
    on: On = "all"
    measures: Annotated[list[str], Some] = [
        "cka_linear",
        "cka_linear_debiased",
        "procrustes",
        "cka_rbf",
        "rsa",
        "mutual_knn",
        "cknna",
    ]
    modality: Literal["image", "text"] = "image"
    interval: bool = True
    permutations: Annotated[int, Field(ge=0, le=100_000)] = 0
    k: AtLeastOne = 10


class Robustness(Part):
    """How often noise on the texts changes the nearest one of an image, as the gap is closed."""

    total_var: Annotated[list[Annotated[float, Field(ge=0, allow_inf_nan=False)]], Some, Distinct] = [0.02]
    alphas: Annotated[list[Annotated[float, Field(allow_inf_nan=False)]], Some] = [0.0, 0.5, 1.0]
    metric: Literal["euclidean", "cosine", "dot"] = "euclidean"
    trials: AtLeastOne = 20


class Gap(Part):
    """How far apart images and texts of one model lie, under which alignments; default: those of the benchmark."""

    on: On = "all"
    alignments: Which | None = None
    interval: bool = True
    robustness: Robustness | None = None


class Alignment(BaseModel):
    """An alignment, post hoc or trained; all keys but these are parameters of its operator."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)
    __pydantic_extra__: dict[str, Annotated[Any, Field(description="a parameter of the operator")]]

    operator: Text
    fit_on: Annotated[str, Field(description="DATASET or DATASET:SPLIT", pattern=r"^[^:]+(:[^:]+)?$")] | None = None
    mode: Annotated[
        Literal["feature", "tower"], Field(description="map finished embeddings, or train the towers of each model")
    ] = "feature"
    transductive: bool = False
    gallery: Literal["image", "text", "class_text"] | None = None

    @property
    def parameters(self) -> dict[str, Any]:
        return dict(self.__pydantic_extra__ or {})


class Benchmark(Part):
    """Which numbers of each model, dataset and alignment."""

    tasks: Annotated[list[Benchmarks], Some]
    on: On = "all"
    alignments: Which = "all"
    recall_at: Annotated[list[AtLeastOne], Some, Distinct] = [1, 5, 10]
    clusters: AtLeastOne | None = None
    clustering_protocol: Literal["default", "grassucci2026"] = "default"
    probe_C: Positive | None = None


class Published(Part):
    """A figure that somebody published of a model as it is, shown beside ours; ``source`` says who, and where."""

    metric: Text
    dataset: Text
    model: Text
    value: float = Field(allow_inf_nan=False)
    source: Annotated[str, Field(description="who published it, and where", pattern=r"\S", max_length=1000)]


class Suite(Part):
    """A whole suite."""

    suite: Name
    models: Annotated[dict[Name, Model], Some]
    datasets: Annotated[dict[Name, Data], Some]
    discrepancy: Discrepancy | None = None
    similarity: Similarity | None = None
    gap: Gap | None = None
    alignments: dict[Name, Alignment] = {}
    benchmark: Benchmark | None = None
    gates: list[Annotated[Gate, BeforeValidator(gate_of)]] = []
    published: list[Published] = []
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")] = "auto"
    batch_size: Annotated[int, Field(ge=1, le=1_000_000)] = 64
    num_workers: Annotated[int, Field(ge=0, le=1024)] = 4
    dtype: Literal["fp32", "host"] = "fp32"
    language: Text = "en"
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = 0
