"""Classifiers on labelled crops: on frozen features (kNN, linear) or with the encoder itself."""
