"""A plan in words."""

from __future__ import annotations

from videorl.planning.cards import GIB
from videorl.planning.plan import Plan
from videorl.planning.rates import ACCELERATORS, RATES
from videorl.planning.simulate import LEARNER


def as_text(plan: Plan) -> str:
    """Return the plan as a table, with what limits the run and what to change."""
    needs, split, card = plan.needs, plan.split, plan.card
    lines = [
        f"{plan.recipe.name} on {card.name} ({card.usable_gib:.1f} of {card.memory_gib:g} GiB "
        f"usable, {RATES['learning'].share:.0%} of {card.tflops:g} TFLOPS), from "
        f"{plan.configs.source}",
        "",
        f"{'role':<18}{'workers':>8}{'GPUs':>6}{'weights':>9}{'training':>9}{'activ.':>8}"
        f"{'peak GiB':>10}{'busy':>6}  seconds",
    ]
    for name, role in needs.roles.items():
        memory, busy = role.memory, split.pace.busy.get(name)
        training = memory.reference + memory.gradients + memory.optimizer + memory.buffers
        lines.append(
            f"{name:<18}{split.workers[name]:>8}{split.gpus[name]:>6g}{memory.weights / GIB:>9.1f}"
            f"{training / GIB:>9.1f}{memory.activations / GIB:>8.1f}{memory.peak_gib:>10.1f}"
            f"{'' if busy is None else f'{busy:.0%}':>6}  {role.unit_s:.3g} for {role.unit}"
            + (" (estimate)" if role.is_estimate else "")
        )
    lines += ["", *_learner_lines(plan), "", *_pace_lines(plan)]
    for name in plan.not_counted():
        lines.append(f"not counted: {name}, which is taken to need nothing")
    lines += [f"DOES NOT FIT: {problem}" for problem in plan.problems()]
    lines += [f"better: {advice}" for advice in plan.advice()]
    return "\n".join(lines)


def _learner_lines(plan: Plan) -> list[str]:
    needs = plan.needs
    lines: list[str] = []
    for choice in (needs.with_checkpointing, needs.without_checkpointing):
        chosen = " (this recipe)" if choice.checkpointing == needs.learner.checkpointing else ""
        most = choice.micro_batch_size
        lines.append(
            f"gradient checkpointing {'on' if choice.checkpointing else 'off'}: "
            f"{choice.one_video.peak_gib:.1f} GiB with one video at a time, "
            + (f"micro_batch_size up to {most}" if most else "which does not fit")
            + chosen
        )
    learner = needs.learner
    if len(learner.parts_s) > 1:
        parts = ", ".join(f"{name} {seconds:.3g} s" for name, seconds in learner.parts_s.items())
        lines.append(f"a video in the learner: {parts}; {learner.limit} takes the most memory")
    if (number := needs.sizes.num_transformers) > 1:
        away = needs.sizes.away_bytes
        where = f"one on the GPU, {away / GIB:.1f} GiB in host memory" if away else "all on the GPU"
        lines.append(
            f"{number} transformers of {needs.sizes.transformer / 1e9:.3g} B are trained: {where}"
        )
    if learner.memory.host:
        lines.append(f"host memory: {learner.memory.host / GIB:.1f} GiB for each learner rank")
    return lines


def _pace_lines(plan: Plan) -> list[str]:
    split = plan.split
    updates = plan.recipe.learner.updates_per_round
    learn_s = plan.needs.learn_s(split.workers[LEARNER], updates)
    unknown = [each.name for each in ACCELERATORS if not each.changes]
    return [
        f"{split.used:g} of {plan.num_gpus:g} GPUs work: a step takes {split.pace.step_s:.3g} s "
        f"({learn_s:.3g} s of it learning), {plan.candidates_per_hour:.0f} candidates per hour, "
        f"{plan.hours:.3g} hours for {plan.recipe.num_steps} steps without evaluation",
        f"limited by {split.bottleneck}, which works {split.pace.busy[split.bottleneck]:.0%} of "
        "the time",
        *(
            f"with {each.name}: {each.pace.step_s:.3g} s per step, limited by "
            f"{each.pace.bottleneck}"
            for each in plan.alternatives
        ),
        f"no gain is planned for {', '.join(unknown)}",
        f"files: {plan.download_bytes / GIB:.1f} GiB to download on a node with every role, "
        f"{plan.checkpoint_bytes / GIB:.2f} GiB of checkpoints",
    ]
