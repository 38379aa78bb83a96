"""The regression head that the LAION aesthetic predictor and ImageReward share."""

from torch import Tensor, nn

WIDTHS = (1024, 128, 64, 16, 1)


class ScoreHead(nn.Module):
    """Five linear layers in a row: the authors commented the activations between them out.

    Dropout has no weights, but a place in the numbering of the published tensors.
    """

    def __init__(self, input_dim: int) -> None:
        """Build it with random weights for features of `input_dim`."""
        super().__init__()
        first, second, third, fourth, last = WIDTHS
        self.layers = nn.Sequential(
            nn.Linear(input_dim, first),
            nn.Dropout(0.2),
            nn.Linear(first, second),
            nn.Dropout(0.2),
            nn.Linear(second, third),
            nn.Dropout(0.1),
            nn.Linear(third, fourth),
            nn.Linear(fourth, last),
        )

    def forward(self, features_BD: Tensor) -> Tensor:
        """Return one score per row, [B, 1]."""
        return self.layers(features_BD)
