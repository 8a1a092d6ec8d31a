"""What a config may hold: keys, types, limits and meanings, stated once.

`make config` writes `rules/config.schema.yaml` and docs/config.md from these models. Values stand
in config.yaml, with their units and sources. A field with the default None may be absent, but not
null.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from hcsqc.core.config import near
from hcsqc.core.places import parse_well


class Section(BaseModel):
    """A mapping of the config whose keys are these fields; others are errors."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _check_keys(cls, given: object) -> object:
        if isinstance(given, Mapping) and cls.model_config["extra"] == "forbid":
            unknown = sorted(str(key) for key in given if key not in cls.model_fields)
            for key in unknown[:1]:
                raise PydanticCustomError(
                    "unknown_key",
                    "unknown key '{key}'{near}",
                    {"key": key, "near": near(key, cls.model_fields)},
                )
        return given


def _may(meaning: str, **limits: Any) -> Any:
    """Return a field that may be absent."""
    return Field(None, description=meaning, **limits)


def _chosen_by(key: str, kind_of: Callable[[Mapping], Any], kinds: Iterable[str]) -> Discriminator:
    """Return what chooses among tagged sections; a kind that has none is an error at `key`."""
    context: dict[str, Any] = {"key": key, "known": list(kinds)}
    return Discriminator(
        lambda given: kind_of(given) if isinstance(given, Mapping) else None,
        custom_error_type="unknown_kind",
        custom_error_message="unknown kind",
        custom_error_context=context,
    )


def _distinct(values: list) -> list:
    if any(value in values[:place] for place, value in enumerate(values)):
        raise PydanticCustomError("repeated", "has non-unique elements")
    return values


def _well(text: str) -> str:
    well = parse_well(text)
    if well is None:
        raise PydanticCustomError("no_well", "is not a well such as A01")
    return well


# Flags join channels by commas and colons, and paths of illumination functions hold them.
CHANNEL_NAME = """^[^-\\s,:/\\\\{}"'$`][^\\t\\r\\n,:/\\\\{}"'$`]*$"""


def _channel(text: str) -> str:
    if not re.fullmatch(CHANNEL_NAME, text):
        raise PydanticCustomError("no_channel", "is not a valid name of a channel")
    return text


LARGEST = 2**63 - 1  # that tables and generators of random numbers hold
Count = Annotated[int, Field(ge=1, le=LARGEST)]
Whole = Annotated[int, Field(ge=0, le=LARGEST)]
TwoOrMore = Annotated[int, Field(ge=2, le=LARGEST)]
NotNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Probability = Annotated[float, Field(ge=0, le=1)]
Share = Annotated[float, Field(gt=0, lt=1)]
Percentile = Annotated[float, Field(ge=0, le=100)]
Diameter = Annotated[float, Field(gt=2)]
Precision = Literal["auto", "float32", "bfloat16"]
Measures = Literal["intensity_and_size", "image_quality", "nucleus_and_ring"]
Region = Literal["window", "cell"]
BatchNorm = Literal["train", "frozen"]
Method = Literal["simclr", "barlow_twins", "vicreg", "deepcluster_v2", "swav"]

Distinct = AfterValidator(_distinct)
Several = Field(min_length=1)
# Names become folders, files and flags of commands: none begins as a flag does or leaves its
# folder, and endings still fit into the 255 bytes of a file's name.
WORD = "^[A-Za-z0-9_][A-Za-z0-9_-]*$"
PLATE = r"^[^\s{}/.=+@-]([^{}/\t\r\n]*[^\s{}/])?$"
NETWORK = "^[A-Za-z0-9_][A-Za-z0-9_.-]*$"
LONGEST_NAME = 100
Word = Annotated[str, Field(pattern=WORD, max_length=LONGEST_NAME)]
Architecture = Annotated[str, Field(pattern=NETWORK, max_length=LONGEST_NAME)]
Names = list[str]
Plates = list[Annotated[str, Field(pattern=PLATE, max_length=LONGEST_NAME)]]
SomeNames = Annotated[Names, Several, Distinct]
ChannelName = Annotated[
    str,
    Field(max_length=LONGEST_NAME),
    AfterValidator(_channel),
    WithJsonSchema({"type": "string", "pattern": CHANNEL_NAME, "maxLength": LONGEST_NAME}),
]
ChannelNames = Annotated[list[ChannelName], Several, Distinct]
Well = Annotated[
    str,
    AfterValidator(_well),
    WithJsonSchema({"type": "string", "pattern": "^ *[A-Za-z]{1,2}[0-9]{1,3} *$"}),
]
Wells = Annotated[list[Well], Distinct]
Budgets = Annotated[list[TwoOrMore], Several, Distinct]
Penalties = Annotated[list[Positive], Several, Distinct]
_WORD_OR_LIST = Discriminator(lambda given: "word" if isinstance(given, str) else "list")
TruthOrFiles = Annotated[
    Annotated[Literal["truth"], Tag("word")] | Annotated[Names, Tag("list")], _WORD_OR_LIST
]
AllOrSome = Annotated[
    Annotated[Literal["all"], Tag("word")] | Annotated[SomeNames, Tag("list")], _WORD_OR_LIST
]
LargestOrSome = Annotated[
    Annotated[Literal["largest"], Tag("word")] | Annotated[Budgets, Tag("list")], _WORD_OR_LIST
]


class Study(Section):
    """The encoders and probes to compare, and the screens to compare them on."""

    name: Word
    train: str = Field(description="the screen whose labels are used for training")
    test: Annotated[Names, Distinct] = Field(description="screens used for testing only")
    encoders: SomeNames = Field(description="names under `encoders`")
    not_run: dict[str, str]
    probes: SomeNames = Field(description="names under `probes`")
    budgets: Budgets
    test_crops: TwoOrMore
    draws: Count
    seeds: Annotated[list[Whole], Several, Distinct]
    smoke_test: bool


class Archives(Section):
    """Where to download a screen's images."""

    url: str = Field(description="folder on a web server")
    plate: Names = Field(description="zip files of a plate, with `{plate}`; unpacked into `images`")
    files: Names = Field(description="other files, stored as they are")


class Simulation(Section):
    """A simulated screen."""

    cell_line: Literal["u2os", "mcf7"] = Field(
        description="cell line whose nuclei and stains are simulated"
    )
    wells: Wells = Field(description="wells of each plate")
    sites: Count = Field(description="fields per well")
    height_px: Count = Field(description="of a field")
    width_px: Count = Field(description="of a field")
    cells_per_field: Count = Field(description="mean per field")
    touching_share: Probability = Field(description="share of cells that touch another")
    artefact_cell_share: Probability = Field(
        description="share of cells with an individual artefact"
    )
    artefact_field_share: Probability = Field(
        description="share of fields with an artefact throughout"
    )
    seed: Whole
    light: Positive = _may("brightness of the lamp, relative to a screen without this key")


class Screen(Section):
    """Keys of every screen."""

    plates: Annotated[Plates, Several, Distinct]
    pretrain_plates: Plates = Field(description="plates whose crops are used for pretraining")
    evaluation_wells: Wells = Field(
        description="wells of the test labels; pretraining never sees them"
    )
    nucleus_channel: str
    composite: Annotated[Names, Several] = Field(
        description="channels that encoders see, in this order; "
        "three of them are red, green and blue in pictures"
    )
    labels: TruthOrFiles = Field(
        description="CSV files, or `truth` for a simulated or derived screen"
    )


class DerivedScreen(Screen):
    """The crops of another screen, and copies of each with a simulated artefact."""

    derived_from: str = Field(description="the screen whose crops are degraded")
    artefacts: Literal["simulated"]
    copies: Annotated[int, Field(ge=1, le=7)] = _may(
        "number of copies of each crop, each with another kind of artefact; absent: one"
    )


class ImagedScreen(Screen):
    """A screen of images."""

    layout: Literal["bbbc022", "bbbc021", "loaddata", "files", "ome_zarr"] = Field(
        description="docs/screens.md"
    )
    images: str = _may(
        "folder; environment variables are expanded; may contain `{plate}`; "
        "not for simulated screens"
    )
    archives: Archives = _may("source for `snakemake download`")
    z_projection: Literal["max", "mean", "middle"] = _may("how to combine the planes of a z-stack")
    bits: Annotated[int, Field(ge=8, le=16)] = _may(
        "bits of the camera; absent: found from the data"
    )
    pixel_um: Positive = _may(
        "side of a source pixel; needed by `crops.window_um` and the shift's matched pixels"
    )
    nucleus_diameter_px: Diameter = _may("source pixels; replaces the value in `crops`")
    nucleus_smallest_px: Count = _may("area in source pixels; replaces the value in `crops`")
    illumination: str = _may(
        "`retrospective`, or a path to CellProfiler's functions with `{plate}` and `{channel}`; "
        "absent: no correction"
    )
    locations: str = _may(
        "CSV of published nuclei, which replaces detection; may contain `{plate}`"
    )

    @model_validator(mode="after")
    def _has_images(self) -> Self:
        if getattr(self, "simulate", None) is None:
            for key in ("images", "image_csv"):
                if key in type(self).model_fields and getattr(self, key) is None:
                    raise PydanticCustomError("absent", "'{key}' is missing", {"key": key})
        return self


class BbbcScreen(ImagedScreen):
    """BBBC022 or BBBC021 as published, or a simulated screen in their layout."""

    image_csv: str = _may("treatments by well; not for simulated screens")
    channels: ChannelNames = _may("those of the published channels that you have; absent: all")
    simulate: Simulation = _may("simulate the images instead of reading them")


class LoadDataScreen(ImagedScreen):
    """A CellProfiler LoadData table lists the images."""

    table: str = Field(description="CSV or Parquet file; may contain `{plate}`")
    channels: ChannelNames
    table_prefix: str = _may("start of the table's paths, which `images` replaces")


class FilesScreen(ImagedScreen):
    """A regular expression parses the names of the images."""

    pattern: str = Field(description="regular expression for a file's path relative to `images`")
    channels: ChannelNames


class OmeZarrScreen(ImagedScreen):
    """Plates in OME-Zarr."""

    channels: ChannelNames
    acquisition: Whole = _may("number of the acquisition to read, if wells hold several")


class NetworkEncoder(Section):
    """A timm network with trained weights."""

    kind: Literal["transfer"]
    architecture: Architecture = Field(description="name in timm")
    input_px: Count = Field(description="side to which crops are resized")
    channels: Literal["composite", "each", "adapted"] = _may(
        "how the network sees channels, see docs/encoders.md; absent: composite"
    )
    file: str = _may("weights as .safetensors or .pth")
    package: Architecture = _may("installed package that contains the weights")


class ModuleEncoder(Section):
    """Your own PyTorch network."""

    kind: Literal["transfer"]
    module: Annotated[str, Field(pattern="^[A-Za-z_][A-Za-z0-9_.]*:[A-Za-z_][A-Za-z0-9_]*$")] = (
        Field(description="`module:function` that returns the network")
    )
    input_px: Count = Field(description="side to which crops are resized")
    file: str = _may("its weights as .safetensors or .pth")


class TableEncoder(Section):
    """Your own table of features."""

    kind: Literal["transfer"]
    features: str = Field(description="Parquet table with crop_id and vector; contains `{screen}`")


class UntrainedEncoder(Section):
    """A control: an untrained network."""

    kind: Literal["control"]
    architecture: Architecture = Field(description="name in timm")
    input_px: Count = Field(description="side to which crops are resized")


class MeasuringControl(Section):
    """A control: simple measures of crops."""

    kind: Literal["control"]
    measures: Measures
    region: Region = _may("region to measure; absent: the whole window")


class MeasuringEncoder(Section):
    """Measures of classical image analysis."""

    kind: Literal["classical"]
    measures: Measures
    region: Region = _may("region to measure; absent: the whole window")


class PooledEncoder(Section):
    """The network of another encoder with different features."""

    kind: Literal["pooled"]
    encoder: str = Field(description="a name under `encoders` that has a network")
    pool: Literal["last", "stages"] = Field(
        description="mean of the last map, or mean and standard deviation of every stage's map"
    )
    region: Region = Field(description="the window, or only the cell in the middle")


class JoinedEncoder(Section):
    """The concatenated features of several encoders."""

    kind: Literal["joined"]
    encoders: SomeNames = Field(description="names under `encoders` that see crops")


class Search(Section):
    """A line search before pretraining: a short trial of each pair of values."""

    learning_rate: Annotated[list[Positive], Several, Distinct] = Field(
        description="values to try, before any scaling"
    )
    weight_decay: Annotated[list[NotNegative], Several, Distinct] = Field(
        description="values to try with each of them"
    )
    epochs: TwoOrMore = Field(
        description="length of a trial; DeepCluster v2 learns from the second epoch on"
    )
    crops: Count = Field(description="number of crops in a trial")


class PretrainedEncoder(Section):
    """A network pretrained on the screen itself; other keys replace those of its preset."""

    model_config = ConfigDict(extra="allow")

    kind: Literal["ssl"]
    method: Method
    preset: str = Field(description="a name under `presets`")
    search: Search = _may("choose learning rate and weight decay by short trials")


class Pretraining(Section):
    """Keys of pretraining for every method."""

    architecture: Architecture
    input_px: Count
    epochs: Count
    warmup_epochs: Whole
    batch_size: TwoOrMore
    optimizer: Literal["sgd", "lars"]
    learning_rate: Positive
    learning_rate_scaled: bool
    warmup_start_rate: NotNegative
    final_rate: NotNegative
    momentum: Probability
    weight_decay: NotNegative
    precision: Precision
    checkpoint_minutes: NotNegative
    snapshots: Whole
    rotate_probability: Probability
    flip_probability: Probability
    transpose_probability: Probability
    shift: Probability
    scale_min: Positive
    scale_max: Positive


class Projector(Pretraining):
    """A method's head."""

    projector_hidden: Count
    projector_output: Count


class SimClr(Projector):
    """SimCLR."""

    temperature: Positive


class BarlowTwins(Projector):
    """Barlow Twins."""

    lambda_off_diagonal: Positive
    loss_scale: Positive


class VicReg(Projector):
    """VICReg."""

    invariance_weight: Positive
    variance_weight: Positive
    covariance_weight: Positive


class DeepClusterV2(Projector):
    """DeepCluster v2."""

    temperature: Positive
    prototypes: Count
    kmeans_iterations: Count


class SwAV(Projector):
    """SwAV."""

    temperature: Positive
    prototypes: Count
    prototypes_frozen_epochs: Whole
    prototype_length_trained: bool
    queue_size: Whole
    queue_start_epoch: Whole
    sinkhorn_epsilon: Positive
    sinkhorn_iterations: Count


METHODS: Mapping[str, type[Pretraining]] = {
    "simclr": SimClr,
    "barlow_twins": BarlowTwins,
    "vicreg": VicReg,
    "deepcluster_v2": DeepClusterV2,
    "swav": SwAV,
}


class Preset(Section):
    """Values that pretrained encoders inherit: a method's values replace the common ones.

    The check of the config holds the two together against the models of `METHODS`.
    """

    common: Pretraining
    simclr: dict[str, Any] = _may("values of SimCLR")
    barlow_twins: dict[str, Any] = _may("values of Barlow Twins")
    vicreg: dict[str, Any] = _may("values of VICReg")
    deepcluster_v2: dict[str, Any] = _may("values of DeepCluster v2")
    swav: dict[str, Any] = _may("values of SwAV")


_BATCHNORM = "`train`: normalise by each batch; `frozen`: by the statistics of the encoder"
_LEAST_STEPS = "minimum number of optimizer steps; with few labels, epochs are added"


class Probe(Section):
    """Keys of every probe."""

    budgets: LargestOrSome = _may("replaces `study.budgets`; `largest`: only the largest of them")
    draws: Count = _may("replaces `study.draws`")


class KnnProbe(Probe):
    """Nearest neighbours."""

    kind: Literal["knn"]
    shuffle_labels: bool = _may("train on labels of other crops: a control")
    neighbours: Count
    metric: Literal["euclidean", "cosine"]


class LogisticProbe(Probe):
    """Converged logistic regression."""

    kind: Literal["logistic"]
    shuffle_labels: bool = _may("train on labels of other crops: a control")
    penalties: Penalties
    folds: TwoOrMore


class SgdProbe(Probe):
    """Training by stochastic gradient descent."""

    kind: Literal["linear", "finetune"]
    shuffle_labels: bool = _may("train on labels of other crops: a control")
    epochs: Count
    batch_size: Count
    learning_rate: Positive
    momentum: Probability
    weight_decay: NotNegative
    milestones: list[Count]
    gamma: Positive


class SgdSearchProbe(Probe):
    """The same with a line search on the training labels."""

    kind: Literal["linear_search", "finetune_search"]
    epochs: Annotated[list[Count], Several]
    batch_size: Count
    learning_rate: Annotated[list[Positive], Several]
    momentum: Probability
    weight_decay: Annotated[list[NotNegative], Several]
    milestone_shares: list[Probability]
    gamma: Positive
    folds: TwoOrMore


class LinearProbe(SgdProbe):
    """A linear layer on frozen features, trained by stochastic gradient descent."""

    kind: Literal["linear"]


class LinearSearchProbe(SgdSearchProbe):
    """The same with a line search on the training labels of each draw."""

    kind: Literal["linear_search"]


class FinetuneProbe(SgdProbe):
    """The encoder and a linear layer, trained together by stochastic gradient descent."""

    kind: Literal["finetune"]
    batchnorm: BatchNorm = Field(description=_BATCHNORM)
    least_steps: Whole = Field(description=_LEAST_STEPS)


class FinetuneSearchProbe(SgdSearchProbe):
    """The same with a line search on the training labels of the first draw."""

    kind: Literal["finetune_search"]
    batchnorm: BatchNorm = Field(description=_BATCHNORM)
    least_steps: Whole = Field(description=_LEAST_STEPS)


def _screen_kind(given: Mapping) -> Any:
    return "derived" if "derived_from" in given else given.get("layout")


def _encoder_kind(given: Mapping) -> Any:
    """Return the kind, of some kinds with the key that says what the features come from."""
    kind = given.get("kind")
    for key, kinds in (
        ("module", ["transfer"]),
        ("features", ["transfer"]),
        ("measures", ["control"]),
    ):
        if key in given and kind in kinds:
            return f"{kind} {key}"
    return kind


LAYOUTS = ("bbbc022", "bbbc021", "loaddata", "files", "ome_zarr")
ENCODER_KINDS = ("transfer", "ssl", "control", "classical", "pooled", "joined")
PROBE_KINDS = ("knn", "linear", "linear_search", "logistic", "finetune", "finetune_search")
AnyScreen = Annotated[
    Annotated[BbbcScreen, Tag("bbbc022")]
    | Annotated[BbbcScreen, Tag("bbbc021")]
    | Annotated[LoadDataScreen, Tag("loaddata")]
    | Annotated[FilesScreen, Tag("files")]
    | Annotated[OmeZarrScreen, Tag("ome_zarr")]
    | Annotated[DerivedScreen, Tag("derived")],
    _chosen_by("layout", _screen_kind, LAYOUTS),
]
AnyEncoder = Annotated[
    Annotated[NetworkEncoder, Tag("transfer")]
    | Annotated[ModuleEncoder, Tag("transfer module")]
    | Annotated[TableEncoder, Tag("transfer features")]
    | Annotated[PretrainedEncoder, Tag("ssl")]
    | Annotated[UntrainedEncoder, Tag("control")]
    | Annotated[MeasuringControl, Tag("control measures")]
    | Annotated[MeasuringEncoder, Tag("classical")]
    | Annotated[PooledEncoder, Tag("pooled")]
    | Annotated[JoinedEncoder, Tag("joined")],
    _chosen_by("kind", _encoder_kind, ENCODER_KINDS),
]
AnyProbe = Annotated[
    Annotated[KnnProbe, Tag("knn")]
    | Annotated[LogisticProbe, Tag("logistic")]
    | Annotated[LinearProbe, Tag("linear")]
    | Annotated[LinearSearchProbe, Tag("linear_search")]
    | Annotated[FinetuneProbe, Tag("finetune")]
    | Annotated[FinetuneSearchProbe, Tag("finetune_search")],
    _chosen_by(
        "kind",
        lambda given: given.get("kind"),
        PROBE_KINDS,
    ),
]


class Download(Section):
    """`snakemake download`."""

    delete_archives: bool
    attempts: Count
    backoff_s: Positive
    timeout_s: Positive
    expected_mb_per_s: Positive
    unpacked_factor: Positive


class Crops(Section):
    """Windows around nuclei."""

    window_px: Annotated[int, Field(ge=16, le=LARGEST, multiple_of=2)]
    window_um: Positive | None
    border: Literal["drop", "reflect"]
    dtype: Literal["uint8", "uint16"]
    nucleus_method: Literal["fast", "watershed", "cellpose", "stardist"]
    nucleus_diameter_px: Diameter
    nucleus_smallest_px: Count
    scale_fields: Count
    scale_background: Percentile
    scale_cells: Positive
    scale_knee: Share
    illumination_fields: Count
    failed_fields: Probability


class Labels(Section):
    """Labels of crops."""

    match_px: Positive
    truth_per_class: Count
    truth_per_field: Count
    truth_per_artefact: Count
    truth_random: Count
    truth_trimmed: Annotated[float, Field(ge=0, lt=1)]
    conflicts: Literal["error", "abnormal", "drop"]


class Features(Section):
    """Features of encoders."""

    batch_size: Count
    precision: Precision
    sample: Whole
    standardised: Count


class Evaluation(Section):
    """What is independent, intervals, and the analyses in addition to the tables."""

    group_by: Literal["well", "compound", "plate"]
    replicates: Count
    draws: Count
    penalties: Penalties
    folds: TwoOrMore
    shift_labels: Annotated[list[TwoOrMore], Distinct]
    shift_channels: Count


class QualityControl(Section):
    """Flags for every cell, field, well and plate."""

    screens: AllOrSome
    detector: str = Field(
        description="folder; environment variables are expanded; empty: the study's own"
    )
    encoder: str = Field(description="`best`, or one of `study.encoders`")
    good_cells_lost: Share
    confidence: Annotated[float, Field(ge=0.5, lt=1)]
    empty_share: Share
    focus_sds: Positive
    focus_drop: Positive
    focus_edge: Positive
    saturated_share: Share
    well_share: Share
    well_sds: Positive
    well_majority: Share
    drift_features: Positive
    drift_scores: Positive
    drift_gain: Annotated[float, Field(gt=1)]
    sample: Count
    label_random: Whole
    label_diverse: Whole
    label_uncertain: Whole


class Tracking(Section):
    """MLflow."""

    uri: str
    ui: Annotated[str, Field(pattern="^https?://")] = _may(
        "address at which you open the UI of a database"
    )


class Config(Section):
    """The whole config."""

    study: Study
    screens: dict[Word, AnyScreen]
    download: Download
    crops: Crops
    labels: Labels
    features: Features
    encoders: dict[Word, AnyEncoder]
    presets: dict[str, Preset]
    probes: dict[Word, AnyProbe]
    evaluation: Evaluation
    qc: QualityControl
    tracking: Tracking
