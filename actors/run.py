"""One run on Ray, from start to report."""

from __future__ import annotations

from importlib import import_module
from threading import Thread

from actors.cluster import check_versions, connect
from actors.naming import job_metadata
from actors.placement import live_nodes
from videorl.config import Recipe
from videorl.data.prompts import check_sources
from videorl.run.compute_type import with_compute_type
from videorl.run.folder import RunFolder, is_finished
from videorl.run.object_store import free_memory_bytes, object_store_bytes
from videorl.run.stages import Stages
from videorl.run.stopping import stop_on_signal


def run(
    recipe: Recipe, folder: RunFolder, address: str | None, stages: Stages | None = None
) -> bool:
    """Run the recipe, or go on with it; return whether it reached its end.

    Args:
        recipe: The run.
        folder: Its folder.
        address: Of a running cluster; see `connect`.
        stages: Those that came before, such as reading the recipe.
    """
    if is_finished(folder, recipe.num_steps):
        from videorl.report.ending import show_finished

        return show_finished(folder, recipe.num_steps)
    stages = stages or Stages()
    check_sources(recipe)
    if recipe.shares_videos:
        from videorl.planning.fitting import check_sharing_of

        check_sharing_of(recipe)
    # PyTorch loads in the seconds in which Ray's own processes start.
    Thread(target=import_module, args=("torch",), daemon=True).start()
    stages.begin("starting Ray" if address is None else "connecting to Ray")
    # In this order: connecting replaces the handler of SIGTERM by one that exits at once.
    store_bytes = object_store_bytes(recipe, free_memory_bytes())
    connected = connect(address, object_store_bytes=store_bytes, metadata=job_metadata(folder.root))
    with connected, stop_on_signal() as should_stop:
        check_versions()
        from actors.compute_type import computing_devices, learner_memory_gib
        from actors.learner_run import run_learner_only
        from actors.online_run import run_online
        from videorl.planning.fitting import with_micro_batch
        from videorl.report import write_report
        from videorl.run.rollback import guarded

        made = with_compute_type(
            recipe, folder.root, lambda: computing_devices(recipe, live_nodes())
        )
        if made.learner.micro_batch_size == "auto":
            made = with_micro_batch(made, learner_memory_gib(made, live_nodes()))
        work = run_online if made.learns_online else run_learner_only
        return guarded(
            made,
            folder.root,
            lambda recipe: work(recipe, folder, should_stop, stages),
            lambda: write_report(folder.root),
        )
