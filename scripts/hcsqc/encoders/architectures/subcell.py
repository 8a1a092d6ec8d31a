"""SubCell: a vision transformer whose tokens are pooled by two heads of gated attention."""

from functools import partial

from torch import Tensor, nn
from torch.nn.functional import gelu

from hcsqc.core.errors import InputError
from hcsqc.core.torchvision_mend import import_timm

SIDE_PX = 448


class GatedAttention(nn.Module):
    """Weights the tokens of each head by a gated layer: N x T x width to N x (heads * width)."""

    def __init__(self, width: int, hidden: int, heads: int):
        super().__init__()
        self.attention_v = nn.Linear(width, hidden)
        self.attention_u = nn.Linear(width, hidden)
        self.attention = nn.Linear(hidden, heads)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the weighted sums of the tokens, of one head after the other."""
        gated = self.attention_v(tokens).tanh() * gelu(self.attention_u(tokens))
        weights = self.attention(gated).softmax(1)
        return (weights.transpose(1, 2) @ tokens).flatten(1)


class SubCell(nn.Module):
    """Maps N x C x 448 x 448 to N x 1536. Parameters are named as `FORMS` leaves the published."""

    def __init__(self, channels: int, input_px: int | None = None):
        super().__init__()
        if input_px not in (None, SIDE_PX):
            raise InputError(f"SubCell is for {SIDE_PX} px; state input_px: {SIDE_PX}")
        self.encoder = import_timm().create_model(
            "vit_base_patch16_224",
            img_size=SIDE_PX,
            in_chans=channels,
            num_classes=0,
            norm_layer=partial(nn.LayerNorm, eps=1e-12),
        )
        self.pool_model = GatedAttention(self.encoder.num_features, 512, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Return the tokens as two heads weight them, the class token among them."""
        return self.pool_model(self.encoder.forward_features(x))
