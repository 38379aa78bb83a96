"""The regression head that the LAION aesthetic predictor and ImageReward share."""

from torch import Tensor, nn

WIDTHS = (1024, 128, 64, 16, 1)


class ScoreHead(nn.Module):
    """Five linear layers without activations, which the authors commented out.

    The dropout layers count in the numbering of the published tensors.
    """

    def __init__(self, input_dim: int) -> None:
        """Build the head with random weights, for features of width `input_dim`."""
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
