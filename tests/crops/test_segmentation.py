"""The methods to choose from: scikit-image's watershed, and networks if they are installed."""

import sys
from types import ModuleType
from urllib.error import URLError

import numpy as np
import pytest
from skimage.draw import disk

from hcsqc.core.errors import InputError
from hcsqc.crops import segmentation
from hcsqc.crops.nuclei import SEGMENTATION_METHODS, NucleusSettings, find_nuclei

CENTRES = [(60, 60), (83, 60), (200, 120)]


def field():
    noise = np.random.default_rng(0).normal(0, 5, (180, 260))
    image = 160 + noise
    for x, y in CENTRES:
        image[disk((y, x), 12.5)] += 700
    return np.rint(image).astype(np.uint16)


@pytest.fixture(autouse=True)
def no_network_is_kept():
    for model in (segmentation._cellpose_model, segmentation._stardist_model):
        model.cache_clear()
    yield
    for model in (segmentation._cellpose_model, segmentation._stardist_model):
        model.cache_clear()


@pytest.mark.parametrize("method", ["fast", "watershed"])
def test_touching_discs_are_found_by_either_method(method):
    nuclei = find_nuclei(field(), NucleusSettings(method, 25, 80))
    found = sorted(zip(nuclei.x_px.tolist(), nuclei.y_px.tolist(), strict=True))
    np.testing.assert_allclose(found, sorted(CENTRES), atol=3)
    np.testing.assert_allclose(nuclei.area_px, np.pi * 12.5**2, rtol=0.25)


def test_watershed_of_a_constant_field_finds_nothing():
    constant = np.full((50, 60), 7, np.uint16)
    assert len(find_nuclei(constant, NucleusSettings("watershed", 25, 80))) == 0


@pytest.mark.parametrize("method", ["cellpose", "stardist"])
def test_package_that_is_not_installed_is_named(monkeypatch, method):
    monkeypatch.setitem(sys.modules, method, None)
    with pytest.raises(InputError, match=f"'{method}', but the package is not installed"):
        find_nuclei(field(), NucleusSettings(method, 25, 80))


def test_unknown_method_is_refused():
    with pytest.raises(InputError, match="'otsu' is not one of fast, watershed, cellpose"):
        find_nuclei(field(), NucleusSettings("otsu", 25, 80))
    assert set(SEGMENTATION_METHODS) == {"fast", "watershed", "cellpose", "stardist"}


def labels_of(image):
    labels = np.zeros(image.shape, np.int32)
    labels[10:20, 30:50] = 4
    labels[100:110, 30:41] = 9
    return labels


def test_cellpose_is_asked_with_the_diameter_and_its_labels_become_centres(monkeypatch):
    asked = []

    class CellposeModel:
        def __init__(self, gpu):
            assert gpu is False

        def eval(self, image, diameter):
            asked.append((image.shape, diameter))
            return labels_of(image), None, None

    package, core, models = (ModuleType(f"cellpose{end}") for end in ("", ".core", ".models"))
    core.use_gpu, models.CellposeModel = (lambda: False), CellposeModel
    package.core, package.models = core, models
    for module in (package, core, models):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    nuclei = find_nuclei(field(), NucleusSettings("cellpose", 25, 80))
    assert asked == [((180, 260), 25)]
    assert nuclei.x_px.tolist() == [40, 35] and nuclei.area_px.tolist() == [200, 110]


def test_stardist_sees_scaled_values_and_its_labels_become_centres(monkeypatch):
    class StarDist2D:
        @classmethod
        def from_pretrained(cls, name):
            assert name == "2D_versatile_fluo"
            return cls()

        def predict_instances(self, image):
            assert image.dtype == np.float32
            assert np.percentile(image, 1) == pytest.approx(0, abs=1e-3)
            return labels_of(image), {}

    package, models = ModuleType("stardist"), ModuleType("stardist.models")
    models.StarDist2D = StarDist2D
    package.models = models
    for module in (package, models):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    nuclei = find_nuclei(field(), NucleusSettings("stardist", 25, 80))
    assert nuclei.y_px.tolist() == [14, 104]


def stand_in(monkeypatch, name, **contents):
    module = ModuleType(name)
    vars(module).update(contents)
    monkeypatch.setitem(sys.modules, name, module)
    return module


@pytest.mark.parametrize(
    "failure",
    [
        URLError("[Errno -2] Name or service not known"),
        RuntimeError("PytorchStreamReader failed reading zip archive\nlong explanation"),
        PermissionError(13, "Permission denied", "/home/x/.cellpose"),
    ],
)
def test_cellpose_without_weights_says_so_in_one_line(monkeypatch, failure):
    def refuse(gpu):
        raise failure

    core = stand_in(monkeypatch, "cellpose.core", use_gpu=lambda: False)
    models = stand_in(monkeypatch, "cellpose.models", CellposeModel=refuse, MODEL_DIR="/models")
    stand_in(monkeypatch, "cellpose", core=core, models=models)
    with pytest.raises(InputError, match="'cellpose', but its network .* from /models") as error:
        find_nuclei(field(), NucleusSettings("cellpose", 25, 80))
    assert type(failure).__name__ in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("failure", [Exception("URL fetch failure on https://x: None"), None])
def test_stardist_without_weights_says_so_in_one_line(monkeypatch, failure):
    class StarDist2D:
        @classmethod
        def from_pretrained(cls, name):
            if failure is not None:
                raise failure  # as Keras does; StarDist returns None for a wrong digest

    models = stand_in(monkeypatch, "stardist.models", StarDist2D=StarDist2D)
    stand_in(monkeypatch, "stardist", models=models)
    with pytest.raises(InputError, match="'stardist', but its network cannot be loaded"):
        find_nuclei(field(), NucleusSettings("stardist", 25, 80))


def test_stardist_without_tensorflow_counts_as_not_installed(monkeypatch):
    class Unimportable(ModuleType):
        def __getattr__(self, name):
            raise RuntimeError("Please install TensorFlow: https://www.tensorflow.org/install/")

    models = Unimportable("stardist.models")
    monkeypatch.setitem(sys.modules, "stardist.models", models)
    stand_in(monkeypatch, "stardist", models=models)
    with pytest.raises(InputError, match="'stardist', but the package is not installed"):
        find_nuclei(field(), NucleusSettings("stardist", 25, 80))
