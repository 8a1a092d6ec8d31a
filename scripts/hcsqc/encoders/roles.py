"""Which channels of a screen an encoder sees: those of the composite, or those with given roles."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from hcsqc.core.errors import InputError
from hcsqc.core.places import by_role
from hcsqc.encoders.models import InputSpec
from hcsqc.encoders.standardised import StandardisedMeasures
from hcsqc.encoders.store import Encoder

HIDDEN = (
    "it normalises each crop, which hides brightness and saturation from a quality detector; "
    "add with: [intensity_and_size] to its entry"
)


@dataclass(frozen=True)
class Sight:
    """How a network that is given sees crops, as flags; `InputSpec` explains the values."""

    normalisation: str = "fixed"
    roles: tuple[str, ...] = ()
    missing_roles: tuple[str, ...] = ()  # ROLE:INSTEAD

    def of(self, spec: InputSpec) -> InputSpec:
        """Return an input that sees crops in this way; raise InputError if it cannot.

        Mean and deviation of published weights are of grey levels, so z-scores stay as they are.
        """
        missing = dict(one.split(":") for one in self.missing_roles)
        values: dict[str, object] = {"normalisation": self.normalisation, "roles": self.roles}
        if self.normalisation == "per_image_zscore":
            values |= {"mean": [0.0] * spec.channels, "std": [1.0] * spec.channels}
        try:
            return InputSpec.from_json(spec.as_json() | values | {"missing_roles": missing})
        except ValueError as error:
            raise InputError(f"how the network sees crops: {error}") from error


AS_MADE = Sight()


def read_roles(flags: Iterable[str]) -> dict[str, str]:
    """Return what each channel shows, of flags CHANNEL:ROLE."""
    pairs = (flag.rpartition(":") for flag in flags)
    return {channel: role for channel, _, role in pairs}


def channels_for(
    encoder: Encoder, composite: Sequence[str], shown: Mapping[str, str], where: str
) -> list[str]:
    """Return the channels of a screen that an encoder is shown, in its order.

    `shown` is what each channel of the screen shows. Without roles they are the composite's; of
    encoders that are joined, those of one come after those of another. The job's log says which
    were chosen by role. `BLACK` stands for a channel of no light.
    Raises InputError, which begins with `where`, if no channel shows a role: see `by_role`.
    """
    chosen: list[str] = []
    for spec in encoder.views.values():
        if not spec.roles:
            chosen += composite
            continue
        about = f"{where} ({encoder.architecture})"
        found = by_role(spec.roles, spec.missing_roles, shown, about)
        told = (
            f"{role}: {name}" + ("" if shown.get(name) == role else " (missing_roles)")
            for role, name in zip(spec.roles, found, strict=True)
        )
        print(f"{about}: channels by role: {', '.join(told)}", file=sys.stderr)
        chosen += found
    return chosen


def hidden_from(encoder: Encoder) -> str | None:
    """Return in a line what normalisation hides from an encoder; None if nothing.

    Networks that normalise each crop see neither brightness nor saturation. Another part may.
    """
    parts = encoder.parts or (encoder,)
    sees = any(
        isinstance(part.backbone, StandardisedMeasures) or part.input_spec.normalisation == "fixed"
        for part in parts
    )
    return None if sees else HIDDEN
