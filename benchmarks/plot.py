"""Curves of the grids beside the paper's, as figures and as tables in Markdown; pages.py writes both.

Lines are means over seeds, bands their standard deviation over seeds; the paper's are dashed and paler. Intervals of
the mean are in docs/results.md: of three seeds they would fill a panel. The return (multi), that is the number of steps
on a goal, is beside the paper's with networks of its size, up to the same number of steps. The paper's numbers are in
paper_curves.csv, and in paper_grid.csv those of its grid of settings, which has no curves.
"""

import itertools
from typing import NamedTuple

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import pandas as pd
from data import (
    DDPG,
    DQN,
    EQUAL,
    MULTI,
    REENGAGE,
    RESULTS,
    ROOT,
    SAC,
    SHORT,
    by_target_actor,
    greedy_return,
    of_curve,
    published_curve,
    runs,
)

IMAGES = ROOT / "docs" / "images"
# grid → the columns that its figure and tables show
COLUMNS = {
    **dict.fromkeys(("continuousseek", "handreach", "sac", "bitflip"), ("success_rate",)),
    "both_actors": ("success_rate", "success_rate_actor"),
    **dict.fromkeys(("multi", "multi_full"), ("episodic_return",)),
}
BLUE, RED, GREEN = "#0072B2", "#D55E00", "#009E73"  # colour-blind safe (Okabe and Ito)
# variant, that is a script and its flags besides the environment → name and colour
VARIANTS = {
    DDPG: ("DDPG+HER", BLUE),
    REENGAGE: ("ReenGAGE", RED),
    f"{REENGAGE} --alpha 0.01": ("ReenGAGE", RED),
    DDPG + SHORT: ("DDPG+HER", BLUE),
    REENGAGE + SHORT: ("ReenGAGE", RED),
    **{DDPG + flags: ("DDPG+HER, ReenGAGE's settings", GREEN) for flags in EQUAL.values()},
    f"{SAC} --alpha 0": ("SAC+HER", BLUE),
    f"{SAC} --alpha 0.04": ("ReenGAGE", RED),
    f"{SAC} --alpha 0.02": ("ReenGAGE", RED),
    f"{DQN} --alpha 0": ("DQN+HER", BLUE),
    DQN: ("ReenGAGE", RED),
    f"{DQN} --soft-target both": ("ReenGAGE, soft target in both terms", GREEN),
    f"{MULTI} --alpha 0": ("DDPG", BLUE),
    f"{MULTI} --alpha 0.1": ("Multi-ReenGAGE", RED),
    f"{MULTI} --alpha 0.5": ("Multi-ReenGAGE", RED),
    f"{MULTI} --alpha 0.1 --separate-encoders": ("separate encoders", GREEN),
    f"{MULTI} --alpha 0.5 --separate-encoders": ("separate encoders", GREEN),
}


class Measure(NamedTuple):
    """How a column of the csv is drawn, and what the table says of it."""

    label: str
    limits: tuple[float, float] | None  # of the axis
    digits: int
    threshold: float  # the table has the first step that reaches it


MEASURES = {
    "success_rate": Measure("success rate", (-0.02, 1.02), digits=3, threshold=0.5),
    "success_rate_actor": Measure("success rate of the actor", (-0.02, 1.02), digits=3, threshold=0.5),
    "episodic_return": Measure("steps on a goal per episode", None, digits=1, threshold=17.5),
}


def draw(axes: plt.Axes, rows: pd.DataFrame, env_id: str, x: str, x_label: str, y: str) -> None:
    """One panel: every variant's curve of y on one environment, and the paper's dashed."""
    for variant, group in rows.groupby("variant"):
        name, color = VARIANTS[variant]
        step = group.groupby("global_step")
        mean = step.mean(numeric_only=True)
        horizontal = mean.index / 1_000 if x == "global_step" else mean[x] / 60
        axes.plot(horizontal, mean[y], color=color, label=name)
        deviation = step[y].std(ddof=0)
        axes.fill_between(horizontal, mean[y] - deviation, mean[y] + deviation, color=color, alpha=0.2, linewidth=0)
        paper = published_curve(env_id, variant, rows.global_step.max()) if x == "global_step" else None
        if paper is not None:
            axes.plot(paper.index / 1_000, paper["mean"], "--", color=color, label=f"{name}, paper")
            band = paper["mean"] - paper["std"], paper["mean"] + paper["std"]
            axes.fill_between(paper.index / 1_000, *band, color=color, alpha=0.08, linewidth=0)
    if env_id == "NoisySeek-v0":
        axes.axhline(greedy_return(), color="grey", linestyle=":", label="greedy agent")
    target_actor = any(by_target_actor(variant, y) for variant in rows.variant.unique())
    label = MEASURES[y].label + (" (ours: target actor)" if target_actor else "")
    axes.set(title=env_id, xlabel=x_label, ylabel=label, ylim=MEASURES[y].limits)
    axes.grid(alpha=0.3)


def summary(curve: pd.Series, y: str) -> list[str]:
    """Last value of a curve over steps, its mean, and the first step at which it is at the threshold."""
    digits, threshold = MEASURES[y].digits, MEASURES[y].threshold
    values = [f"{value:.{digits}f}" for value in (curve.iloc[-1], of_curve(curve))]
    reached = curve.index[curve >= threshold]
    return [*values, f"{reached[0]:,}" if len(reached) else "–"]


def published(env_id: str, variant: str, last_step: int, y: str) -> list[str]:
    """The paper's summary up to a step; of its grid of settings, final value and mean alone are known."""
    paper = published_curve(env_id, variant, last_step)
    if paper is not None:
        return summary(paper["mean"], y)
    grid = pd.read_csv(RESULTS / "paper_grid.csv", dtype=str)
    grid = grid[(grid.env_id == env_id) & (grid.variant == variant)]
    return [*grid.iloc[0][["final", "mean"]], "–"] if len(grid) else ["–"] * 3


def environments(rows: pd.DataFrame) -> list[str]:
    """The environments of a grid, that of the shortest runs first."""
    return list(rows.groupby("env_id").global_step.max().sort_values(kind="stable").index)


def table(grid: str, y: str) -> str:
    """Final value of y, mean over evaluation points, and steps to the threshold, ours and the paper's, as Markdown."""
    rows = runs(grid)
    final, to = f"final {MEASURES[y].label}", f"steps to {MEASURES[y].threshold}"
    lines = [f"| environment | script | seeds | {final} | mean | {to} | paper: final | mean | {to} |", "|---" * 9 + "|"]
    groups = dict(list(rows.groupby(["env_id", "variant"])))
    for env_id, variant in sorted(groups, key=lambda key: (environments(rows).index(key[0]), key[1])):
        group = groups[env_id, variant]
        command = " ".join([f"{variant.split()[0]}.py", *variant.split()[1:]])
        ours = summary(group.groupby("global_step")[y].mean(), y)
        theirs = published(env_id, variant, group.global_step.max(), y)
        lines.append("| " + " | ".join([env_id, f"`{command}`", str(group.seed.nunique()), *ours, *theirs]) + " |")
    return "\n".join(lines)


def drawn(grid: str) -> pd.DataFrame:
    """The rows of the variants that the figure shows; the others are in the table alone."""
    rows = runs(grid)
    ablation = ~rows.variant.isin(VARIANTS) | ((grid == "continuousseek") & rows.variant.str.contains("--alpha"))
    return rows[~ablation]


def figure(grid: str) -> None:
    """Draws docs/images/GRID.png: a panel for each environment and measure; HandReach by minutes, too."""
    rows = drawn(grid)
    axis = {"global_step": "thousand steps"} | ({"wall_seconds": "minutes"} if grid == "handreach" else {})
    panels = list(itertools.product(environments(rows), COLUMNS[grid], axis))
    lines = len(COLUMNS[grid])
    columns = len(panels) // lines
    size = (4 * columns, 3.6 * lines + 0.4)
    figure, axes = plt.subplots(lines, columns, figsize=size, layout="constrained", squeeze=False)
    for each, (env_id, y, x) in zip(axes.T.flat, panels, strict=True):
        draw(each, rows[rows.env_id == env_id], env_id, x, axis[x], y)
    legend = {line.get_label(): line for each in axes.flat for line in each.get_lines()}
    across = len(legend) if len(legend) <= 3 else (len(legend) + 1) // 2
    figure.legend(legend.values(), legend.keys(), loc="outside lower center", ncols=across, frameon=False)
    figure.savefig(IMAGES / f"{grid}.png", dpi=150)
