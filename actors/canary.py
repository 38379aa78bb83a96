"""The canary on a cluster: the learner's own sample, compared where the generators are."""

from __future__ import annotations

import ray

from actors.generator import RayGenerator
from actors.learner.learner import RayLearner
from videorl.errors import WorkLostError
from videorl.sampling.canary import Canary, canary_request, explain
from videorl.types import WeightVersion


def ray_canary(seed: int, tolerance: float, generator: RayGenerator, learner: RayLearner) -> Canary:
    """Return the canary of a run; the pool replaces generators that disagree."""

    def check(version: WeightVersion) -> float:
        request = canary_request(seed, version)
        embeds = generator.embeds(request.prompt.condition).result()
        # By value, though latents: a reference would be lost with the rank that made it.
        wanted = ray.put(learner.sample(request, embeds[0], embeds[1]))
        try:
            checks = generator.canary(request, embeds, wanted, tolerance)
            return max(one.result() for one in checks)
        except WorkLostError as error:
            raise explain(version, error) from error

    return check
