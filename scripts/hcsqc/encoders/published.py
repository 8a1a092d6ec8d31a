"""Weights of registered models: where they may lie, how they are had, what may be done with them.

Only the one local rule `fetch_weights` uses this; no job opens a connection or reads the registry.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download

from hcsqc.core.errors import InputError
from hcsqc.core.files import sha256
from hcsqc.encoders.registry import RegisteredModel
from hcsqc.encoders.weights import Weights, brought_file, find_weights, load_if_whole


def find_published(
    model: RegisteredModel,
    file: Path | None = None,
    options: Mapping[str, Any] | None = None,
) -> Weights:
    """Return the weights of a model: of `file`, else of the file that was brought, else the hub's.

    `options` replace those of the model. A file is read as data, wherever it comes from.
    Raises InputError if there are none, saying which file to fetch from where and where to put it,
    or if the file is another than the published one of that name.
    """
    place, options = file or brought(model), model.network_options if options is None else options
    revision = None
    if not file and not place.exists():
        if not model.weights:  # timm fetches it by its tag, and says what to bring if it cannot
            weights = find_weights(model.architecture, options=options)
            return replace(weights, provenance=dict(weights.provenance) | _known(model))
        place = _of_hub(model)
        revision = place.parent.name  # <cache>/<repository>/snapshots/<revision>/<file>
    published = place in (brought(model), Path(model.weights)) or place.name == model.weights
    if model.sha256 and published and sha256(place) != model.sha256:
        raise InputError(
            f"{place}: is not the published file, whose SHA-256 begins with {model.sha256[:8]}; "
            f"fetch it again from {model.source}"
        )
    weights = find_weights(model.architecture, place, options=options)
    about = dict(weights.provenance) | _known(model)
    if revision:
        about |= {"weights": "hub", "repository": model.hub, "revision": revision}
    if options.get("in_chans") != model.network_options.get("in_chans"):  # another network's
        return replace(weights, provenance=about)
    return replace(weights, mean=model.mean, std=model.std, provenance=about)


def brought(model: RegisteredModel) -> Path:
    """Return where a person puts the file of a model that cannot be fetched from here."""
    if not model.weights:
        return brought_file(model.architecture)
    return Path("weights") / f"{model.name}{Path(model.weights).suffix}"


def kept(path: Path, model: RegisteredModel, options: Mapping[str, Any]) -> Weights | None:
    """Return weights that were fetched from the hub before, None if `path` holds others or none.

    They are not asked for again: the hub may be out of reach by now.
    """
    weights = load_if_whole(path)
    if weights is None or brought(model).exists():
        return None
    about = weights.provenance
    same = (about.get("weights"), about.get("model")) == ("hub", model.name)
    return weights if same and dict(weights.options) == dict(options) else None


def _known(model: RegisteredModel) -> dict[str, object]:
    return {
        "model": model.name,
        "licence": model.licence,
        "non_commercial": model.non_commercial,
        "source": model.source,
    }


def _of_hub(model: RegisteredModel) -> Path:
    """Return the file of a model's repository on the hub; no code of the repository is fetched."""
    problem = ""
    if model.hub:
        try:
            return Path(hf_hub_download(model.hub, model.weights))
        except Exception as error:  # whatever the hub's client raises without network or cache
            problem = f"the model hub cannot be reached ({type(error).__name__}); "
    raise InputError(
        f"no weights for model {model.name}: {problem}fetch {model.weights} from {model.source} "
        f"and put it here as {brought(model)}, or state file: PATH in the encoder's entry; "
        f"licence: {model.licence}"
    )
