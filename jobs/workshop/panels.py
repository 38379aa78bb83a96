"""The Grafana dashboard of runs as data: rows of panels, each with its queries.

`$run` is the variable of the dashboard, `$__rate_interval` Grafana's own.
"""

from __future__ import annotations

from dataclasses import dataclass

RUN = 'run=~"$run"'
_RATE = "[$__rate_interval]"


@dataclass(frozen=True, slots=True)
class Query:
    """A PromQL query, and how its series are called."""

    expr: str
    legend: str


@dataclass(frozen=True, slots=True)
class Panel:
    """A panel; `unit` is one of Grafana's."""

    title: str
    about: str
    queries: tuple[Query, ...]
    unit: str = "short"
    is_number: bool = False
    """A single number instead of curves."""
    is_stacked: bool = False


def _gauge(metric: str, legend: str = "", **matches: str) -> Query:
    """Return the query of a gauge of ours, as it is."""
    given = "".join(f',{tag}="{value}"' for tag, value in matches.items())
    return Query(f"ray_videorl_{metric}{{{RUN}{given}}}", f"{{{{run}}}} {legend}".strip())


def _rate(metric: str, tag: str) -> Query:
    """Return the query of a counter of ours per second, summed by a tag."""
    expr = f"sum by (run, {tag}) (rate(ray_videorl_{metric}_total{{{RUN}}}{_RATE}))"
    return Query(expr, f"{{{{run}}}} {{{{{tag}}}}}")


def _increase(metric: str, tag: str, window: str = "15m") -> Query:
    expr = f"sum by (run, {tag}) (increase(ray_videorl_{metric}_total{{{RUN}}}[{window}]))"
    return Query(expr, f"{{{{run}}}} {metric.replace('_', ' ')} {{{{{tag}}}}}")


_DIMENSION = "{{reward}} {{dimension}}"

ROWS: tuple[tuple[str, tuple[Panel, ...]], ...] = (
    (
        "Now",
        (
            Panel("Steps done", "", (_gauge("step"),), is_number=True),
            Panel(
                "Remaining",
                "The steps that are left, as long as the steps of the last 15 minutes.",
                (
                    Query(
                        f"(ray_videorl_num_steps{{{RUN}}} - ray_videorl_step{{{RUN}}})"
                        f" * avg_over_time(ray_videorl_step_seconds{{{RUN}}}[15m])",
                        "{{run}}",
                    ),
                ),
                "s",
                is_number=True,
            ),
            Panel(
                "Since the last step",
                "Or since training began.",
                (_gauge("seconds_since_step"),),
                "s",
                is_number=True,
            ),
            Panel(
                "Reward",
                "Mean total of the newest step's candidates.",
                (_gauge("reward", dimension="total"),),
                is_number=True,
            ),
        ),
    ),
    (
        "Is it getting better?",
        (
            Panel(
                "Reward by dimension",
                "If one falls while the total rises, it is being traded away.",
                (_gauge("reward", _DIMENSION),),
            ),
            Panel(
                "Spread within a group",
                "Near 0: the candidates of a prompt are scored alike, and pairs are noise.",
                (_gauge("reward_spread", _DIMENSION),),
            ),
            Panel(
                "Unseen metrics",
                "No reward sees these: if they drift while the reward rises, it is exploited.",
                (_gauge("unseen", "{{metric}}"),),
            ),
            Panel(
                "Margin",
                "Of the policy against the reference (starts again at 0 after each swap), and of "
                "the pairs as scored.",
                (_gauge("learn_margin", "learned"), _gauge("pairs_margin", "of pairs")),
            ),
            Panel(
                "Accuracy",
                "Share of comparisons in which the policy prefers the chosen video.",
                (_gauge("learn_accuracy"),),
                "percentunit",
            ),
            Panel(
                "Error on chosen videos",
                "Against the reference. Rising while the margin grows: likelihood displacement.",
                (_gauge("dpo_winner_error_change"),),
                "percentunit",
            ),
            Panel(
                "Drift of the weights",
                "From where the run started, relative.",
                (_gauge("weights_drift"),),
            ),
            Panel("Loss", "", (_gauge("learn_loss"),)),
            Panel("Gradient norm", "Before clipping.", (_gauge("optimizer_grad_norm"),)),
        ),
    ),
    (
        "Time",
        (
            Panel(
                "Where the driver's time goes",
                "Shares of the wall time; together they are 1.",
                (_rate("stage_seconds", "stage"),),
                "percentunit",
                is_stacked=True,
            ),
            Panel(
                "Where the workers' time goes",
                "Seconds of all workers per second, by stage.",
                (_rate("work_seconds", "stage"),),
                is_stacked=True,
            ),
            Panel("Seconds per step", "", (_gauge("step_seconds"),), "s"),
            Panel(
                "Candidates per second",
                "Scored.",
                (
                    Query(
                        f"sum by (run) (rate(ray_videorl_candidates_scored_total{{{RUN}}}{_RATE}))",
                        "{{run}}",
                    ),
                ),
            ),
        ),
    ),
    (
        "Workers",
        (
            Panel(
                "Workers",
                "Pending workers wait for a node.",
                tuple(
                    _gauge(f"pool_{state}", f"{{{{pool}}}} {name}")
                    for state, name in (
                        ("workers", "ready"),
                        ("busy", "busy"),
                        ("starting", "starting"),
                        ("pending", "pending"),
                    )
                ),
            ),
            Panel("Queued requests", "", (_gauge("pool_queued", "{{pool}}"),)),
            Panel(
                "Replaced and repeated, in 15 minutes",
                "Fenced workers lived, but held wrong weights. Requests that take long go to a "
                "second worker for speed.",
                tuple(
                    _increase(f"pool_{what}", "pool")
                    for what in ("replaced", "fenced", "retried", "repeated_for_speed")
                ),
            ),
        ),
    ),
    (
        "Losses and staleness",
        (
            Panel(
                "Dropped, in 15 minutes",
                "",
                (_increase("candidates_dropped", "reason"), _increase("groups_dropped", "reason")),
            ),
            Panel(
                "Groups without a pair, in 15 minutes",
                "",
                (_increase("groups_without_pair", "reason"),),
            ),
            Panel(
                "Staleness",
                "Steps between the weights that sampled and those that learn; at most the setting.",
                (_gauge("staleness_steps"), _gauge("max_staleness", "at most")),
            ),
            Panel(
                "Candidates by age of their weights, per second",
                "",
                (_rate("candidates_by_age", "age"),),
                is_stacked=True,
            ),
        ),
    ),
    (
        "Cluster",
        (
            Panel(
                "Weights published",
                "Per second. Every generator pulls each version once.",
                (
                    Query(
                        f"sum by (run) (rate(ray_videorl_published_bytes_total{{{RUN}}}{_RATE}))",
                        "{{run}}",
                    ),
                ),
                "Bps",
            ),
            Panel(
                "Through the head node",
                "Of all that runs there, as the system counts it.",
                (
                    Query(f'sum(rate(ray_node_network_sent{{IsHeadNode="true"}}{_RATE}))', "sent"),
                    Query(
                        f'sum(rate(ray_node_network_received{{IsHeadNode="true"}}{_RATE}))',
                        "received",
                    ),
                ),
                "Bps",
            ),
            Panel(
                "Object store",
                "What is spilled lies on the node's disk, and is read back from there.",
                (
                    Query("sum by (instance) (ray_object_store_used_memory)", "{{instance}} used"),
                    Query(
                        'sum by (instance) (ray_object_store_memory{Location="SPILLED"})',
                        "{{instance}} spilled",
                    ),
                ),
                "bytes",
            ),
            Panel(
                "Free disk",
                "Of the run folder, and of Ray's folder on each node.",
                (
                    _gauge("disk_free_bytes", "run folder"),
                    Query("sum by (instance) (ray_node_disk_free)", "{{instance}}"),
                ),
                "bytes",
            ),
        ),
    ),
)
