"""The mirror of all records in MLflow."""
