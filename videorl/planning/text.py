"""A plan in words."""

from __future__ import annotations

from videorl.planning.cards import GIB, SHARE
from videorl.planning.plan import Plan
from videorl.planning.simulate import LEARNER


def as_text(plan: Plan) -> str:
    """Return the plan as a table, with what limits the run and what to change."""
    needs, split, card = plan.needs, plan.split, plan.card
    lines = [
        f"{plan.recipe.name} on {card.name} ({card.usable_gib:.1f} of {card.memory_gib:g} GiB "
        f"usable, {SHARE:.0%} of {card.tflops:g} TFLOPS), from {plan.configs.source}",
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
    return lines


def _pace_lines(plan: Plan) -> list[str]:
    split = plan.split
    learn_s = plan.needs.learn_s(split.workers[LEARNER])
    return [
        f"{split.used:g} of {plan.num_gpus:g} GPUs work: a step takes {split.pace.step_s:.3g} s "
        f"({learn_s:.3g} s of it learning), {plan.candidates_per_hour:.0f} candidates per hour, "
        f"{plan.hours:.3g} hours for {plan.recipe.num_steps} steps without evaluation",
        f"busiest: {split.bottleneck} ({split.pace.busy[split.bottleneck]:.0%})",
        f"files: {plan.download_bytes / GIB:.1f} GiB to download on a node with every role, "
        f"{plan.checkpoint_bytes / GIB:.2f} GiB of checkpoints",
    ]
