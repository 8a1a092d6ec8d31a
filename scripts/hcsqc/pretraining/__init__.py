"""Self-supervised pretraining on unlabelled crops."""
