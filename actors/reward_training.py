"""One training of a reward model on Ray, from start to the exported checkpoint."""

from __future__ import annotations

from contextlib import closing

from actors.cluster import check_versions, connect
from actors.learner.rank_group import resources_for
from actors.learner.reward_rank import RayRewardTrainer
from actors.monitoring.sink import ray_metrics
from actors.naming import job_metadata, run_name
from actors.placement import check_feasible, live_nodes, place_learner
from actors.pool.places import Places
from actors.seats.booking import booked
from videorl.reward_training.config import RewardRecipe
from videorl.reward_training.fit import fit, outcome
from videorl.run.checkpoint_note import CheckpointNote
from videorl.run.folder import RunFolder
from videorl.run.sinks import fan_out, open_sinks
from videorl.run.stopping import stop_on_signal


def train_reward(recipe: RewardRecipe, folder: RunFolder, address: str | None) -> bool:
    """Train, or go on with, one recipe; return whether it reached its last step."""
    learner = recipe.learner
    num_cpus = learner.num_workers * learner.num_cpus
    with connect(address, num_cpus=num_cpus, metadata=job_metadata(folder.root)):
        check_versions()
        nodes = live_nodes()
        placement = place_learner(learner, nodes)
        check_feasible(placement, nodes, can_grow=False)
        places = Places(placement)
        with (
            # Inside: connecting replaces the handler of SIGTERM by one that exits at once.
            stop_on_signal() as should_stop,
            open_sinks(recipe, folder) as sinks,
            ray_metrics(recipe, folder) as metrics,
            booked(
                placement,
                run_name(recipe),
                places,
                should_stop,
                can_grow=False,
                most_ranks=learner.max_workers,
            ) as booking,
            closing(
                RayRewardTrainer(
                    recipe,
                    folder.root,
                    resources_for(placement.learner, learner, booking),
                    places,
                )
            ) as trainer,
        ):
            note = CheckpointNote(folder.root, recipe.checkpoint)
            sink = fan_out([sinks, metrics])
            is_over = fit(recipe, trainer, sink, folder.reward, should_stop, note)
            if is_over:
                sinks.summary(outcome(recipe))
            return is_over
