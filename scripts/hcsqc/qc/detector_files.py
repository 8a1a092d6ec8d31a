"""Names of the files in the folder of a detector; what reads them alone needs no torch."""

ENCODER = "encoder.safetensors"
CLASSIFIER = "detector.safetensors"
ABOUT = "detector.json"
HELD_OUT = "held_out.parquet"  # the labels, each with its score when it was held out
