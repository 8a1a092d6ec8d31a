"""Images of a field: TIFF, PNG, OME-Zarr; stacks of planes."""
