"""What α does on every environment, ours beside the paper's, as a figure and tables in Markdown; pages.py writes both.

A point is the mean over seeds of the mean over all evaluations, with its 95 % interval (Student's). The paper's,
dashed, are up to the same number of steps. The second table sets the runs whose α follows alpha_rule.py beside those
with the best fixed α.
"""

import importlib
import re
from typing import NamedTuple

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from claims import interval
from data import DDPG, DQN, EQUAL, MULTI, PAPER, REENGAGE, RESULTS, SAC, markdown, of_curve, paper_curve, runs
from plot import IMAGES


class Panel(NamedTuple):
    """An environment with one script's runs: the variant with α = 0, and one with an α that the paper has, too."""

    title: str
    grid: str
    env_id: str
    base: str
    variant: str
    n: int  # α is a multiple of 1/n: the goal's dimension, or n_max

    @property
    def script(self) -> str:
        return self.variant.split()[0]

    @property
    def unit(self) -> str:
        return "n_max" if self.script == MULTI else "d"

    @property
    def measure(self) -> str:
        return "episodic_return" if self.script == MULTI else "success_rate"

    @property
    def paper(self) -> list[str]:
        """The paper's panels of the two variants; fewer where its grid of settings has ours, without curves."""
        known = PAPER.get(self.env_id, {})
        return [known[which][0] for which in (self.base, self.variant) if which in known]


PANELS = [
    *(
        Panel(f"ContinuousSeek, d = {d}", "continuousseek", f"ContinuousSeek{d}-v0", DDPG, REENGAGE, d)
        for d in (5, 10, 20)
    ),
    *(
        Panel(f"SAC on ContinuousSeek, d = {d}", "sac", f"ContinuousSeek{d}-v0", f"{SAC} --alpha 0", with_term, d)
        for d, with_term in ((5, f"{SAC} --alpha 0.04"), (10, f"{SAC} --alpha 0.02"))
    ),
    Panel("HandReach", "handreach", "HandReach-v2", DDPG, f"{REENGAGE} --alpha 0.01", 15),
    Panel("BitFlip, d = 40", "bitflip", "BitFlip-v0", f"{DQN} --alpha 0", DQN, 40),
    Panel("BitFlip, d = 20", "bitflip", "BitFlip20-v0", f"{DQN} --alpha 0", DQN, 20),
    Panel("DriveSeek", "multi", "DriveSeek-v0", f"{MULTI} --alpha 0", f"{MULTI} --alpha 0.1", 200),
    Panel("NoisySeek", "multi", "NoisySeek-v0", f"{MULTI} --alpha 0", f"{MULTI} --alpha 0.5", 200),
]


def ours(panel: Panel) -> tuple[pd.DataFrame, int]:
    """Every run that differs from the environment's settings by α alone: its multiple of the unit and its value.

    Also the length of the runs.
    """
    rows = runs(panel.grid)
    rows = rows[(rows.env_id == panel.env_id) & rows.variant.str.fullmatch(rf"({panel.script}( --alpha \S+)?|{DDPG})")]
    script = importlib.import_module(panel.script)
    default = script.PAPER_SETTINGS[panel.env_id].get("alpha", script.Args.alpha)
    alpha = rows.variant.str.extract(r"--alpha (\S+)")[0].astype(float).fillna(default).where(rows.script != DDPG, 0)
    values = rows.groupby([(alpha * panel.n).round(3), "seed"])[panel.measure].apply(of_curve)
    return values.rename_axis(["multiple", "seed"]).rename("value").reset_index(), rows.global_step.max()


def papers(panel: Panel, last_step: float) -> pd.Series:
    """The paper's means over evaluations up to a step, by multiples of the unit."""
    if len(panel.paper) < 2:
        grid = pd.read_csv(RESULTS / "paper_grid.csv").query("env_id == @panel.env_id")
        alpha = grid.variant.str.extract(r"--alpha (\S+)")[0].astype(float)
        return grid.set_index((alpha * panel.n).round(3))["mean"]
    curves = pd.read_csv(RESULTS / "paper_curves.csv")
    labels = curves[curves.panel == panel.paper[1]].alpha.dropna().unique()
    number = re.compile(r"([\d.]+)(\*sigma\^2)?/(d|n_max)")
    values = {0.0: of_curve(paper_curve(panel.paper[0], None, last_step)["mean"])}
    values |= {float(number.match(a)[1]): of_curve(paper_curve(panel.paper[1], a, last_step)["mean"]) for a in labels}
    return pd.Series(values).sort_index()


def compared(panel: Panel) -> pd.DataFrame:
    """By multiples of the unit: our mean, its interval and seeds, and the paper's value; nan where there is none."""
    values, last_step = ours(panel)
    groups = values.groupby("multiple").value
    rows = {multiple: [group.mean(), *interval(0.0, group), len(group)] for multiple, group in groups}
    own = pd.DataFrame.from_dict(rows, orient="index", columns=["ours", "low", "high", "seeds"])
    return own.join(papers(panel, last_step if rows else np.inf).rename("paper"), how="outer")


def at_one_setting(panel: Panel) -> pd.Series:
    """By seeds, the values of α = 0 with the batch and learning rate of the other α, where the baseline has its own.

    Empty where only shorter runs have them.
    """
    rows = runs("both_actors")
    same = DDPG + EQUAL[panel.n] if panel.grid == "continuousseek" else None
    rows = rows[(rows.env_id == panel.env_id) & (rows.variant == same)]
    as_long = rows.global_step.max() == ours(panel)[1]
    return rows.groupby("seed").success_rate.apply(of_curve) if as_long else pd.Series(dtype=float)


def draw(axes: plt.Axes, panel: Panel) -> None:
    rows, same = compared(panel), at_one_setting(panel)
    if len(same):
        low, high = interval(0.0, same)
        around = [[same.mean() - low], [high - same.mean()]]
        axes.errorbar([0], [same.mean()], around, fmt="x", color="black", capsize=3, label="ours, α = 0 at one setting")
    own, published = rows.dropna(subset="ours"), rows.paper.dropna()
    around = [own.ours - own.low, own.high - own.ours]
    axes.errorbar(own.index, own.ours, around, fmt="o", color="black", capsize=3, label="ours")
    axes.plot(published.index, published, "s", color="grey", mfc="none", label="paper")
    for curve, style in ((own.ours, {"color": "black"}), (published, {"color": "grey", "ls": "--"})):
        # On ContinuousSeek α = 0 has a batch and learning rate of its own.
        joined = curve[curve.index > 0] if panel.grid == "continuousseek" else curve
        axes.plot(joined.index, joined, **style)
    axes.set_title(panel.title, fontsize=10)
    axes.set(xlabel=f"α · {panel.unit}", ylabel=panel.measure.replace("_", " "))
    axes.set_ylim(0, 1.1 * np.nanmax(rows[["ours", "high", "paper"]]))
    axes.grid(alpha=0.3)


def table() -> str:
    """What every α gives, as Markdown."""
    rows = []
    for panel in PANELS:
        digits = 1 if panel.measure == "episodic_return" else 2
        lines = [(f"{multiple:g}", *row) for multiple, row in compared(panel).iterrows()]
        same = at_one_setting(panel)
        if len(same):
            known = (same.mean(), *interval(0.0, same), len(same), np.nan)
            lines.insert(1, ("0, with the others' batch and rate", *known))
        for alpha, *numbers, seeds, paper in lines:
            ours, low, high, paper = (f"{number:.{digits}f}" for number in (*numbers, paper))
            cells = {"environment": panel.title, "unit": f"1/{panel.unit}", "α": alpha, "ours": ours}
            cells |= {"95 % interval": f"{low} to {high}", "seeds": f"{seeds:g}", "paper": paper}
            rows.append({name: "–" if "nan" in cell else cell for name, cell in cells.items()})
    return markdown(rows)


def rule_table() -> str:
    """The runs whose α follows alpha_rule.py beside those with the best fixed α, as Markdown."""
    every, rows = runs("alpha_rule"), []
    for panel in PANELS:
        ruled = every[(every.env_id == panel.env_id) & every.variant.str.contains(f"--script {panel.script} ")]
        if len(ruled):
            fixed = compared(panel)
            best, values = fixed.ours.idxmax(), ruled.groupby("seed")[panel.measure].apply(of_curve)
            every_alpha, _ = ours(panel)
            low, high = interval(every_alpha.value[every_alpha.multiple == best], values)
            row = {"environment": panel.title, "best α": f"{best:g}/{panel.unit}"}
            row |= {"its value": f"{fixed.ours[best]:.2f}", "rule": f"{values.mean():.2f}"}
            row |= {"difference": f"{values.mean() - fixed.ours[best]:+.2f}"}
            row |= {"95 % interval": f"{low:+.2f} to {high:+.2f}" if len(values) > 1 else "–"}
            rows.append(row | {"seeds: rule, best": f"{len(values)}, {fixed.seeds[best]:g}"})
    return markdown(rows)


def figure() -> None:
    """Draws docs/images/alpha.png."""
    figure, axes = plt.subplots(2, 5, figsize=(14, 5.5), layout="constrained")
    for panel, each in zip(PANELS, axes.flat, strict=True):
        draw(each, panel)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    figure.savefig(IMAGES / "alpha.png", dpi=120)
