"""The plan's model of the loop against real runs of the orchestration on stand-ins.

    python -m jobs.bench.simulation                  # every mix, staleness 0 and 1
    python -m jobs.bench.simulation --steps 6 --mixes balanced generation-bound

Stand-ins sleep for the times that the model is given; the loop, the pools, the reward workers and
Ray are real. Prints seconds per step of both, and model / run.
"""

from __future__ import annotations

from collections.abc import Sequence

from jobs import command
from jobs.bench.measuring import add_json, keep_priority, write_json


def main(argv: Sequence[str] | None = None) -> int:
    """Run every mix; print one line for each as soon as it is there."""
    parser = command.new_parser("python -m jobs.bench.simulation", __doc__)
    command.add_option(parser, "--steps", 5, "steps measured")
    command.add_option(parser, "--staleness", [0, 1], "values of rollouts.max_staleness")
    mixes = ["generation-bound", "reward-bound", "learner-bound", "balanced"]
    command.add_option(parser, "--mixes", mixes, "of jobs/bench/overlap.py")
    text = "how many times longer every stage is; Ray's own work counts less"
    command.add_option(parser, "--stretch", 8.0, text)
    add_json(parser)
    options = parser.parse_args(argv)
    keep_priority()

    from dataclasses import replace

    from actors.cluster import connect
    from jobs.bench.overlap import MIXES, PER_ROUND, overlap
    from videorl.planning.simulate import Stages, simulate

    found: list[dict[str, object]] = []
    print(f"{'mix':<28}{'staleness':>10}{'model s':>9}{'run s':>9}{'model/run':>11}")
    with connect("local", num_cpus=4):
        for name in options.mixes:
            given = MIXES[name]
            scaled = {
                key: options.stretch * getattr(given, key)
                for key in ("generate_s", "score_s", "learn_s")
            }
            pace = replace(given, **scaled)
            for staleness in options.staleness:
                stages = Stages(
                    per_round=PER_ROUND,
                    staleness=staleness,
                    generate_s=pace.generate_s,
                    score_s={"reward": pace.score_s},
                    learn_s=pace.learn_s,
                    generators=1,
                    scorers={"reward": 1},
                    spread=pace.spread,
                )
                model_s = simulate(stages).step_s
                run_s = overlap(pace, staleness, options.steps)["step, s"]
                print(
                    f"{name:<28}{staleness:>10}{model_s:>9.3f}{run_s:>9.3f}"
                    f"{model_s / run_s:>11.3f}",
                    flush=True,
                )
                found.append(
                    {"mix": name, "staleness": staleness, "model_s": model_s, "run_s": run_s}
                )
    write_json(options.json, found)
    return 0


if __name__ == "__main__":
    raise SystemExit(command.run(main))
