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

from hcsqc.core.config import SECRET, holds_secret, near
from hcsqc.core.places import Role, parse_well
from hcsqc.core.torchvision_mend import NETWORK_OPTIONS


class Section(BaseModel):
    """A mapping of the config whose keys are these fields; others are errors."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _check_keys(cls, given: object) -> object:
        if isinstance(given, Mapping) and cls.model_config["extra"] == "forbid":
            known = [field.alias or name for name, field in cls.model_fields.items()]
            unknown = sorted(str(key) for key in given if key not in known)
            for key in unknown[:1]:
                raise PydanticCustomError(
                    "unknown_key",
                    "unknown key '{key}'{near}",
                    {"key": key, "near": near(key, known)},
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


def _place(text: str) -> str:
    """Refuse URLs that hold a secret, because records would keep it."""
    if re.match("(?i)[a-z0-9]+://", text):
        if not re.match("(?i)(s3|gs|https?)://[^/]", text):
            raise PydanticCustomError(
                "no_scheme", "is not a path or a URL of s3://, gs:// or https://"
            )
        if holds_secret(text):
            raise PydanticCustomError("secret", SECRET)
    return text


Place = Annotated[str, AfterValidator(_place)]
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
Pool = Literal["last", "stages", "cls", "mean", "cls_mean", "per_channel"]
Normalisation = Literal["fixed", "per_image_zscore", "per_image_minmax"]
RoleOrZero = Literal[Role, "zero"]
BatchNorm = Literal["train", "frozen"]
Method = Literal[
    "simclr",
    "barlow_twins",
    "vicreg",
    "deepcluster_v2",
    "swav",
    "byol",
    "moco_v2_plus",
    "simsiam",
    "dino",
]

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
Name = Annotated[str, Field(pattern=PLATE, max_length=LONGEST_NAME)]
Plates = list[Name]
SomeNames = Annotated[Names, Several, Distinct]
ChannelName = Annotated[
    str,
    Field(max_length=LONGEST_NAME),
    AfterValidator(_channel),
    WithJsonSchema({"type": "string", "pattern": CHANNEL_NAME, "maxLength": LONGEST_NAME}),
]
# Commands join a column and its words by an equals sign.
FlagColumn = Annotated[str, Field(pattern=r"^[^-=\s][^=\t\r\n]*$", max_length=LONGEST_NAME)]
Sentence = Annotated[str, Field(pattern=r"^\S[^\t\r\n]*$", max_length=LONGEST_NAME)]
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
    labelled_plates: Annotated[Plates, Several, Distinct] = _may(
        "plates on which the labels lie; adding other plates then trains nothing again; absent: all"
    )
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


class PublishedFlags(Section):
    """Quality flags by field that others published, which ours are compared with."""

    table: Place = Field(
        description="CSV, Parquet or SQLite file (table Image) with a row per field, or its URL; "
        "environment variables are expanded; may contain `{plate}`"
    )
    columns: Annotated[dict[FlagColumn, Sentence], Several] = Field(
        description="column of a flag: what it means, such as `out of focus`; docs/qc.md"
    )


class ImagedScreen(Screen):
    """A screen of images."""

    layout: Literal[
        "bbbc022", "bbbc021", "loaddata", "cell_painting_gallery", "files", "ome_zarr"
    ] = Field(description="docs/screens.md")
    images: Place = _may(
        "folder, or URL that begins with s3://, gs:// or https://; environment variables are "
        "expanded; may contain `{plate}`; not for simulated screens"
    )
    archives: Archives = _may("source for `snakemake download`")
    z_projection: Literal["max", "mean", "middle"] = _may("how to combine the planes of a z-stack")
    channel_roles: dict[ChannelName, Role] = _may(
        "what channels show, for encoders with `roles`; absent: known for `bbbc022`, `bbbc021` "
        "and names such as DNA or OrigDNA, else `other`"
    )
    bits: Annotated[int, Field(ge=8, le=16)] = _may(
        "bits of the camera; absent: found from the data"
    )
    pixel_um: Positive = _may(
        "side of a source pixel; needed by `crops.window_um` and the shift's matched pixels"
    )
    nucleus_diameter_px: Diameter = _may("source pixels; replaces the value in `crops`")
    nucleus_smallest_px: Count = _may("area in source pixels; replaces the value in `crops`")
    dates: str = _may(
        "table of when plates were imaged, columns Metadata_Plate and date, for the trend; absent: "
        "when the images last changed"
    )
    illumination: str = _may(
        "`retrospective`, or a path to CellProfiler's functions with `{plate}` and `{channel}`; "
        "absent: no correction"
    )
    locations: str = _may(
        "CSV of published nuclei, which replaces detection; may contain `{plate}`"
    )

    published_flags: PublishedFlags = _may("published quality flags to compare ours with")

    @model_validator(mode="after")
    def _has_images(self) -> Self:
        if getattr(self, "simulate", None) is None:
            for key in ("images", "image_csv"):
                if key in type(self).model_fields and getattr(self, key) is None:
                    raise PydanticCustomError("absent", "'{key}' is missing", {"key": key})
        return self


class BbbcScreen(ImagedScreen):
    """BBBC022 or BBBC021 as published, or a simulated screen in their layout."""

    image_csv: Place = _may("treatments by well; not for simulated screens")
    channels: ChannelNames = _may("those of the published channels that you have; absent: all")
    simulate: Simulation = _may("simulate the images instead of reading them")


class LoadDataScreen(ImagedScreen):
    """A CellProfiler LoadData table lists the images."""

    table: Place = Field(description="CSV or Parquet file, or its URL; may contain `{plate}`")
    channels: ChannelNames
    table_prefix: str = _may("start of the table's paths, which `images` replaces")


class GalleryScreen(ImagedScreen):
    """Plates of the Cell Painting Gallery, or of a copy of it."""

    channels: ChannelNames
    project: Name = Field(description="such as `cpg0016-jump`")
    source: Name = Field(description="such as `source_4` or `broad`")
    batch: Name = _may("such as `2021_04_26_Batch1`; absent: the one that has the plate")

    @model_validator(mode="after")
    def _has_images(self) -> Self:
        return self  # the gallery's bucket, if not said otherwise


class FilesScreen(ImagedScreen):
    """A regular expression parses the names of the images."""

    pattern: str = Field(description="regular expression for a file's path relative to `images`")
    channels: ChannelNames


class OmeZarrScreen(ImagedScreen):
    """Plates in OME-Zarr."""

    channels: ChannelNames
    acquisition: Whole = _may("number of the acquisition to read, if wells hold several")


def _option(name: str, meaning: str) -> Any:
    """Return a field for an option of a network, with its limits."""
    kind, least, most = NETWORK_OPTIONS[name]
    limits: dict[str, Any] = {} if kind is bool else {"ge": least, "le": most}
    return _may(meaning, **limits)


class NetworkOptions(Section):
    """What a network is made with, by the names of `timm.create_model`."""

    img_size: int = _option("img_size", "side that positions are for; absent: `input_px`")
    patch_size: int = _option("patch_size", "side of a patch")
    in_chans: int = _option("in_chans", "channels that the published weights are for; absent: 3")
    num_classes: int = _option(
        "num_classes", "outputs of the last layer, which are then the features; absent: no layer"
    )
    init_values: float = _option("init_values", "scale of layers (LayerScale); absent: as in timm")
    dynamic_img_size: bool = _option(
        "dynamic_img_size", "keep the published positions and interpolate them for each crop"
    )
    class_token: bool = _option("class_token", "whether there is a class token")
    reg_tokens: int = _option("reg_tokens", "number of register tokens")
    no_embed_class: bool = _option(
        "no_embed_class", "whether class and register tokens have no position"
    )
    qkv_bias: bool = _option("qkv_bias", "whether queries, keys and values have biases")
    qk_norm: bool = _option("qk_norm", "whether queries and keys are normalised")


class GivenEncoder(Section):
    """How a network that is given sees the channels of a screen."""

    kind: Literal["transfer"]
    roles: Annotated[list[Role], Several] = _may(
        "what its channels show, in order; absent: the screen's composite"
    )
    missing_roles: dict[Role, RoleOrZero] = _may(
        "role: what stands for it on a screen without such a channel, another role or `zero`"
    )
    normalisation: Normalisation = _may(
        "of pixels, see docs/encoders.md; absent: `fixed`, which keeps brightness"
    )
    beside: SomeNames = _may(
        "names under `encoders` whose features are concatenated with its own", alias="with"
    )


class NetworkEncoder(GivenEncoder):
    """A network with published weights: a registered model, or one of timm."""

    model: str = _may(
        "name of a registered model, see docs/encoders.md; the other keys then replace its values"
    )
    architecture: Architecture = _may("name in timm; needed without `model`")
    options: NetworkOptions = _may("what the network is made with; absent: as in timm")
    input_px: Count = _may("side to which crops are resized; needed without `model`")
    channels: Literal["composite", "each", "adapted", "any"] = _may(
        "how the network sees channels, see docs/encoders.md; absent: composite"
    )
    pool: Pool = _may("how its last layers become features; absent: its own way")
    file: str = _may("weights as .safetensors or .pth")
    package: Architecture = _may("installed package that contains the weights")

    @model_validator(mode="after")
    def _has_network(self) -> Self:
        for key in ("architecture", "input_px"):
            if self.model is None and getattr(self, key) is None:
                raise PydanticCustomError("absent", "'{key}' is missing", {"key": key})
        return self


class ModuleEncoder(GivenEncoder):
    """Your own PyTorch network."""

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
    pool: Pool = Field(description="what becomes features, see docs/encoders.md")
    region: Region = Field(
        description="the window, or only the cell in the middle, for `last` and `stages`"
    )


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


class Byol(Projector):
    """BYOL."""

    predictor_hidden: Count
    tau_start: Probability
    tau_end: Probability


class MoCoV2Plus(Projector):
    """MoCo v2+."""

    temperature: Positive
    queue_size: Count
    tau_start: Probability
    tau_end: Probability


class SimSiam(Projector):
    """SimSiam."""

    predictor_hidden: Count


class Dino(Projector):
    """DINO."""

    prototypes: Count
    prototypes_frozen_epochs: Whole
    student_temperature: Positive
    teacher_temperature_start: Positive
    teacher_temperature: Positive
    teacher_warmup_epochs: Whole
    centre_momentum: Probability
    gradient_limit: NotNegative
    tau_start: Probability
    tau_end: Probability


METHODS: Mapping[str, type[Pretraining]] = {
    "simclr": SimClr,
    "barlow_twins": BarlowTwins,
    "vicreg": VicReg,
    "deepcluster_v2": DeepClusterV2,
    "swav": SwAV,
    "byol": Byol,
    "moco_v2_plus": MoCoV2Plus,
    "simsiam": SimSiam,
    "dino": Dino,
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
    byol: dict[str, Any] = _may("values of BYOL")
    moco_v2_plus: dict[str, Any] = _may("values of MoCo v2+")
    simsiam: dict[str, Any] = _may("values of SimSiam")
    dino: dict[str, Any] = _may("values of DINO")


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


LAYOUTS = ("bbbc022", "bbbc021", "loaddata", "cell_painting_gallery", "files", "ome_zarr")
ENCODER_KINDS = ("transfer", "ssl", "control", "classical", "pooled", "joined")
PROBE_KINDS = ("knn", "linear", "linear_search", "logistic", "finetune", "finetune_search")
AnyScreen = Annotated[
    Annotated[BbbcScreen, Tag("bbbc022")]
    | Annotated[BbbcScreen, Tag("bbbc021")]
    | Annotated[LoadDataScreen, Tag("loaddata")]
    | Annotated[GalleryScreen, Tag("cell_painting_gallery")]
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


class RemoteImages(Section):
    """Images at a URL."""

    connections: Annotated[int, Field(ge=1, le=256)]
    copies: str | None
    copies_gib: Positive


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
        description="folder, or URL that begins with s3://; environment variables are expanded; "
        "empty: the study's own"
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
    trend_plates: Annotated[int, Field(ge=5)]
    trend_sds: Annotated[float, Field(gt=0, le=8)]
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
    remote_images: RemoteImages
    crops: Crops
    labels: Labels
    features: Features
    encoders: dict[Word, AnyEncoder]
    presets: dict[str, Preset]
    probes: dict[Word, AnyProbe]
    evaluation: Evaluation
    qc: QualityControl
    tracking: Tracking
