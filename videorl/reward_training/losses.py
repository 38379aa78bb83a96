"""Losses of reward models: pure functions of rewards and labels."""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn import functional as F

PREFERS_A, PREFERS_B, SAME, INVALID = 1, -1, 0, 22
"""The labels A, B, same and invalid as numbers, as in VideoAlign's code."""
TIE_SHARE = 5.0
"""k, theta in VideoAlign: with a larger k, more of the near-equal pairs are expected to be ties."""


def bradley_terry_with_ties(
    rewards_a_BK: Tensor, rewards_b_BK: Tensor, labels_BK: Tensor, k: float = TIE_SHARE
) -> Tensor:
    """Return the negative log-likelihood [B, K] of each label; 0 where it is invalid.

    This is Rao and Kupper's model, called "BTT" in Liu et al. (arXiv 2501.13918, section 3.2), as
    in `loss_type="btt"` of VideoAlign's trainer.py at 219ab9db:
    P(A) = e^a / (e^a + k e^b), P(tie) = (k² - 1) e^a e^b / ((e^a + k e^b)(k e^a + e^b)).
    The authors' loss is the mean over all entries, invalid ones included.

    Args:
        rewards_a_BK: Rewards of the first video of each pair, per dimension.
        rewards_b_BK: Rewards of the second video.
        labels_BK: 1 A is better, -1 B is better, 0 same, 22 invalid.
        k: Must be > 1.
    """
    margin_BK = rewards_a_BK - rewards_b_BK
    a_wins_BK = -F.logsigmoid(margin_BK - math.log(k))
    b_wins_BK = -F.logsigmoid(-margin_BK - math.log(k))
    tie_BK = a_wins_BK + b_wins_BK - math.log(k**2 - 1)
    loss_BK = tie_BK.where(labels_BK == SAME, a_wins_BK.where(labels_BK == PREFERS_A, b_wins_BK))
    return loss_BK.masked_fill(labels_BK == INVALID, 0.0)
