"""The guided start: what a folder of images holds, and the study written for it."""
