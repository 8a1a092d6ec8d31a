"""A detector as a model of MLflow's, which scores crops where there is neither study nor Snakemake.

Input: `pixels`, crops n x C x H x W uint8 scaled as the study scales them, whose channels are those
that the encoder sees, in its order (`channels_for`), and `nucleus_area_px`, n numbers. Output: a
table of `score` and `artefact`.
"""

import os
import shutil
import warnings
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

import mlflow.pyfunc
import numpy as np
import pandas as pd
import torch
from mlflow.models import ModelSignature
from mlflow.pyfunc import PythonModel
from mlflow.types import ColSpec, Schema, TensorSpec

from hcsqc.features.extract import Embedder
from hcsqc.qc.detector import Detector, load_detector

LIBRARY = Path(__file__).resolve().parents[1]
CODE = Path(__file__).with_name("model_code.py")
PACKAGES = (
    "torch",
    "timm",
    "torchvision",
    "numpy",
    "pandas",
    "scipy",
    "opencv-python-headless",
    "pyarrow",
    "safetensors",
    "mlflow",
)
CROPS_AT_ONCE = 64


class DetectorModel(PythonModel):
    """The detector of the artifact `detector`, a folder."""

    def load_context(self, context) -> None:
        """Read the detector."""
        self.detector = load_detector(Path(context.artifacts["detector"]))

    def predict(self, context, model_input, params=None) -> pd.DataFrame:
        """Return score and most likely artefact of each crop."""
        pixels = np.asarray(model_input["pixels"], np.uint8)
        areas = np.asarray(model_input["nucleus_area_px"], np.float32).reshape(-1)
        features = features_of(self.detector, pixels, areas)
        return pd.DataFrame(
            {
                "score": self.detector.scores(features),
                "artefact": self.detector.artefacts_of(features).astype(str),
            }
        )


def features_of(detector: Detector, pixels: np.ndarray, areas: np.ndarray) -> np.ndarray:
    """Return the n x width features of crops in memory, on the CPU in float32."""
    embedder = Embedder(detector.encoder, torch.device("cpu"), "float32")
    return embedder.features(embedder.inputs(pixels, areas, CROPS_AT_ONCE))


def installed_pins() -> list[str]:
    """Return the requirements of an environment that loads a model: the versions installed here.

    Without a build's own name, such as +cpu, which package indexes do not have.
    """
    return [f"{package}=={version(package).partition('+')[0]}" for package in PACKAGES]


def save_model(
    detector_folder: Path, example: np.ndarray, areas: np.ndarray, folder: Path, pins: list[str]
) -> None:
    """Write a detector as an MLflow model into `folder`, which is replaced.

    `example` are a few composite crops and `areas` their nuclei's, kept as the input example;
    `pins` are the requirements of an environment that loads it.
    """
    signature = ModelSignature(
        inputs=Schema(
            [
                TensorSpec(np.dtype(np.uint8), (-1, *example.shape[1:]), "pixels"),
                TensorSpec(np.dtype(np.float32), (-1,), "nucleus_area_px"),
            ]
        ),
        outputs=Schema([ColSpec("double", "score"), ColSpec("string", "artefact")]),
    )
    with TemporaryDirectory(dir=folder.parent) as temporary, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = Path(temporary) / "model"
        mlflow.pyfunc.save_model(
            made,
            python_model=str(CODE),
            artifacts={"detector": str(detector_folder)},
            code_paths=[str(LIBRARY)],
            signature=signature,
            input_example={"pixels": example, "nucleus_area_px": areas},
            pip_requirements=pins,
        )
        shutil.rmtree(folder, ignore_errors=True)
        made.rename(folder)
