"""OpenPhenom: a vision transformer with tokens of its own for every channel, of any channels."""

from importlib import import_module

from torch import Tensor, cat, nn, zeros

from hcsqc.core.errors import InputError
from hcsqc.core.torchvision_mend import import_timm

SIDE_PX, PATCHES = 256, (256 // 16) ** 2
MOST_CHANNELS = 11  # that its positions are for


class OpenPhenom(nn.Module):
    """Maps N x C x 256 x 256, up to 11 channels, to N x 384: the mean of all patches' tokens.

    All channels share one patch embedding and the positions of the patches; attention is over the
    patches of all channels together. Parameters are named as in the published file below
    `encoder.`, the last norm included, which the published features do without.
    """

    def __init__(self, channels: int, input_px: int | None = None):
        super().__init__()
        if input_px not in (None, SIDE_PX) or channels > MOST_CHANNELS:
            raise InputError(
                f"OpenPhenom is for up to {MOST_CHANNELS} channels of {SIDE_PX} px, not "
                f"{channels} of {input_px}; state input_px: {SIDE_PX}"
            )
        self.vit_backbone = import_timm().create_model(
            "vit_small_patch16_224",
            img_size=SIDE_PX,
            in_chans=1,
            num_classes=0,
            global_pool="avg",
            init_values=1e-4,
            qkv_bias=False,
            qk_norm=True,
            block_fn=import_module("timm.models.vision_transformer").ParallelScalingBlock,
        )
        self.num_features = self.vit_backbone.num_features
        # Fixed sines and cosines, which come with the weights.
        positions = zeros(1, 1 + MOST_CHANNELS * PATCHES, self.num_features)
        self.vit_backbone.pos_embed = nn.Parameter(positions, requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the mean over patches and channels."""
        return self.forward_channels(x).mean(1)

    def forward_channels(self, x: Tensor) -> Tensor:
        """Return the mean over the patches of each channel, N x C x 384."""
        vit, (crops, channels) = self.vit_backbone, x.shape[:2]
        patches = vit.patch_embed.proj(x.flatten(0, 1).unsqueeze(1)).flatten(2).transpose(1, 2)
        patches = patches.reshape(crops, channels * PATCHES, -1)
        tokens = cat([vit.cls_token.expand(crops, -1, -1), patches], 1)
        tokens = vit.blocks(tokens + vit.pos_embed[:, : tokens.shape[1]])
        return tokens[:, 1:].unflatten(1, (channels, PATCHES)).mean(2)
