"""Encoders kept along the epochs of a pretraining."""

import copy
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from hcsqc.encoders.models import InputSpec
from hcsqc.encoders.store import Encoder, save_encoder

# Of a backbone, its input and what is to be said of it (`epoch=3`).
Describe = Callable[..., Encoder]


class Snapshots:
    """Encoders in `folder`, a file per epoch kept; they stay there until the training has ended."""

    def __init__(self, folder: Path, describe: Describe):
        self.folder, self.describe = folder, describe

    def keep(self, epoch: int, backbone: nn.Module, input_spec: InputSpec) -> None:
        """Keep the encoder after so many epochs; 0 is before the first."""
        if epoch == 0:
            shutil.rmtree(self.folder, ignore_errors=True)  # of a run with other settings
        copied = copy.deepcopy(backbone).to("cpu", memory_format=torch.contiguous_format)
        encoder = self.describe(copied, input_spec, epoch=epoch)
        save_encoder(encoder, self.folder / f"epoch{epoch:04d}.safetensors")

    def copy_to(self, folder: Path) -> None:
        """Put a copy of them in the place of `folder`, an empty one if there are none.

        Copied: should the job be killed before its end, the next start still has them.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.folder, folder)
