"""What MLflow runs to have the model of a detector: code, so that no pickle is ever loaded."""

from mlflow.models import set_model

from hcsqc.qc.mlflow_model.model import DetectorModel

set_model(DetectorModel())
