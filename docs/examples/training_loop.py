"""The training loop by hand, in one process.

    python docs/examples/training_loop.py

This is `videorl/loop.py` without checkpoints, archive and pools: sample with the newest weights,
score, pair, take an optimizer step, and now and then make the policy the new reference.
"""

from __future__ import annotations

from pathlib import Path

from videorl import rewards
from videorl.data.prompts import PromptStream, load_prompts
from videorl.learning.build import build_learner
from videorl.learning.engines.local import LocalEngine
from videorl.policies import load_policy
from videorl.recipes.reading import load_recipe
from videorl.rollouts import request_for
from videorl.sampling.local import LocalGenerator, LocalScorer

STEPS, PROMPTS = 3, 2


def main() -> None:
    """Align the shipped policy for a few steps."""
    recipe = load_recipe("moving_shapes", [f"prompts.per_round={PROMPTS}", "reference.interval=2"])
    learner, _ = build_learner(
        recipe, Path("runs/by_hand"), lambda module: LocalEngine(module, recipe.optimizer)
    )
    parts = frozenset({"transformer", "vae", "text_encoder"})
    sampler = load_policy(recipe.policy, recipe.sampling, parts=parts)
    generator = LocalGenerator(sampler, recipe.sampling.negative_prompt, learner.published)
    model = {"moving_shapes": rewards.load("moving_shapes")}
    scorer = LocalScorer(model, recipe.rewards, unseen=lambda video: {})
    stream = PromptStream(load_prompts("moving_shapes", "train"), recipe.seed)
    version, _ = learner.start()
    for step in range(STEPS):
        positions = range(step * PROMPTS, (step + 1) * PROMPTS)
        requests = [request_for(recipe, stream, position, version) for position in positions]
        groups = [generator.submit(request).result() for request in requests]
        scored = [scorer.submit(group).result() for group in groups]
        pairs = [pair for group in scored for pair in recipe.pair_rule(group)]
        output = learner.step(step, pairs)
        version = output.version
        if version.step % recipe.reference.interval == 0:
            learner.update_reference(version)
        print(f"step {step}: loss {output.metrics['learn/loss']:.3f}, {len(pairs)} pairs")
    Path("runs/by_hand/aligned").mkdir(parents=True, exist_ok=True)
    learner.export(Path("runs/by_hand/aligned"))
    learner.close()


if __name__ == "__main__":
    main()
