"""The detector as a model of MLflow."""
