"""The settings of a pretraining, and its whole recipe."""

from dataclasses import dataclass

from hcsqc.core.errors import InputError
from hcsqc.encoders.views import ViewSettings
from hcsqc.pretraining.methods import METHODS

# solo-learn's recipes state the rate for a batch of this size.
RATE_IS_PER_BATCH = 256


@dataclass(frozen=True)
class PretrainingSettings:
    """What to train and how; the method's own settings are apart."""

    architecture: str
    method: str  # a key of METHODS
    input_px: int
    epochs: int
    warmup_epochs: int
    batch_size: int
    optimizer: str  # sgd or lars
    learning_rate: float
    learning_rate_scaled: bool  # true: times batch_size / 256
    warmup_start_rate: float  # learning rate that the warm-up begins at
    final_rate: float  # learning rate that the cosine ends at
    momentum: float
    weight_decay: float
    precision: str  # float32, bfloat16, or auto: bfloat16 where the hardware computes in it
    checkpoint_minutes: float  # 0: after every step
    snapshots: int  # encoders kept along the epochs

    def __post_init__(self):
        for name, known in (
            ("method", tuple(METHODS)),
            ("optimizer", ("sgd", "lars")),
            ("precision", ("auto", "float32", "bfloat16")),
        ):
            if getattr(self, name) not in known:
                raise InputError(f"{name} is '{getattr(self, name)}', expected {', '.join(known)}")
        if not 0 <= self.warmup_epochs <= self.epochs or self.epochs < 1:
            raise InputError(
                f"{self.warmup_epochs} warm-up epochs of {self.epochs}, "
                "expected at least one epoch and no more warm-up than that"
            )
        if self.batch_size < 2:
            raise InputError(f"batch_size is {self.batch_size}, expected at least 2")

    @property
    def peak_rate(self) -> float:
        """The learning rate after the warm-up."""
        if self.learning_rate_scaled:
            return self.learning_rate * self.batch_size / RATE_IS_PER_BATCH
        return self.learning_rate

    @property
    def snapshot_epochs(self) -> set[int]:
        """The epochs after which the encoder is kept, evenly apart; 0 is before the first."""
        kept = min(self.snapshots, self.epochs)
        return {round(self.epochs * part / kept) for part in range(kept + 1)} if kept else set()


@dataclass(frozen=True)
class Recipe:
    """All that is chosen of a pretraining; the crops are apart."""

    settings: PretrainingSettings
    views: ViewSettings
    method_settings: object  # the `Settings` of the method's module
    seed: int
