"""Draws what α does on every environment, ours beside the paper's, and prints the table in Markdown.

    python benchmarks/plot_alpha.py

writes docs/images/alpha.png and .svg. A point is the mean over seeds of the mean over all evaluations, with its 95 %
bootstrap interval. The paper's, dashed, are up to the same number of steps; SAC's are of each α's best batch.
"""

import importlib
import re
import sys
from pathlib import Path
from typing import NamedTuple

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from claims import DDPG, DQN, MULTI, REENGAGE, SAC
from data import RESULTS, of_curve, paper_curve, runs
from plot import BLUE, IMAGES, RED
from scipy import stats

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))


class Panel(NamedTuple):
    """An environment with one script's runs, α's unit there, and the paper's panels: of α = 0, and of the others."""

    title: str
    grid: str
    env_id: str
    script: str
    unit: float  # α is a multiple of it
    label: str
    paper: tuple[str, str]
    measure: str = "success_rate"


SEEK = "continuousseek_d"
PANELS = [
    *(
        Panel(f"ContinuousSeek, d = {d}", "continuousseek", f"ContinuousSeek{d}-v0", REENGAGE, 1 / d, "α · d",
              (f"{SEEK}{d}_lr{one}", f"{SEEK}{d}_lr{other}"))
        for d, one, other in ((5, "0.001_batch512", "0.0015_batch512"), (10, "0.0005_batch256", "0.001_batch512"),
                              (20, "0.0005_batch256", "0.0005_batch128"))
    ),
    *(
        Panel(f"SAC on ContinuousSeek, d = {d}", "sac", f"ContinuousSeek{d}-v0", SAC, 1 / d, "α · d",
              (f"{SEEK[:-2]}_sac_d{d}_best",) * 2)
        for d in (5, 10)
    ),
    Panel("HandReach", "handreach", "HandReach-v2", REENGAGE, 1 / 15, "α · d", ("handreach_normalized",) * 2),
    Panel("BitFlip, d = 40", "bitflip", "BitFlip-v0", DQN, 1 / 40, "α · d",
          ("bitflip_d40_gradonly_tau0.5",) * 2),
    Panel("BitFlip, d = 20", "bitflip", "BitFlip20-v0", DQN, 1 / 20, "α · d",
          ("bitflip_d20_gradonly_tau0.5",) * 2),
    Panel("DriveSeek", "multi", "DriveSeek-v0", MULTI, 1 / 200, "α · n_max",
          ("driveseek_sharing",) * 2, "episodic_return"),
    Panel("NoisySeek", "multi", "NoisySeek-v0", MULTI, 1 / 200, "α · n_max",
          ("noisyseek_allalpha",) * 2, "episodic_return"),
]  # fmt: skip


def ours(panel: Panel) -> tuple[pd.DataFrame, int]:
    """Every run that differs from the environment's settings by α alone: its multiple of the unit and its value.

    Also the length of the runs.
    """
    rows = runs(panel.grid)
    rows = rows[(rows.env_id == panel.env_id) & rows.variant.str.fullmatch(rf"({panel.script}( --alpha \S+)?|{DDPG})")]
    script = importlib.import_module(panel.script)
    default = script.PAPER_SETTINGS[panel.env_id].get("alpha", script.Args.alpha)
    alpha = rows.variant.str.extract(r"--alpha (\S+)")[0].astype(float).fillna(default).where(rows.script != DDPG, 0)
    values = rows.groupby([alpha / panel.unit, "seed"])[panel.measure].apply(of_curve)
    return values.rename_axis(["multiple", "seed"]).rename("value").reset_index(), rows.global_step.max()


def papers(panel: Panel, last_step: float) -> pd.Series:
    """The paper's means over evaluations up to a step, by multiples of the unit."""
    curves = pd.read_csv(RESULTS / "paper_curves.csv")
    labels = curves[curves.panel == panel.paper[1]].alpha.dropna().unique()
    number = re.compile(r"([\d.]+)(\*sigma\^2)?/(d|n_max)")
    values = {0.0: of_curve(paper_curve(panel.paper[0], None, last_step)["mean"])}
    values |= {float(number.match(a)[1]): of_curve(paper_curve(panel.paper[1], a, last_step)["mean"]) for a in labels}
    return pd.Series(values).sort_index()


def interval(values: np.ndarray) -> tuple[float, float]:
    """95 % bootstrap interval of the mean; a single value has none."""
    if len(values) < 2:
        return np.nan, np.nan
    result = stats.bootstrap((values,), np.mean, n_resamples=2_000, method="percentile", rng=np.random.default_rng(0))
    return tuple(result.confidence_interval)


def main() -> None:
    figure, axes = plt.subplots(2, 5, figsize=(16, 6), layout="constrained")
    lines = ["| environment | unit | α | ours | 95 % interval | seeds | paper |", "|---" * 7 + "|"]
    for panel, each in zip(PANELS, axes.flat, strict=True):
        values, last_step = ours(panel)
        groups, published = values.groupby("multiple").value, papers(panel, last_step if len(values) else np.inf)
        bounds = np.array([interval(values.to_numpy()) for _, values in groups]).T
        mean, digits = groups.mean(), 1 if panel.measure == "episodic_return" else 2
        each.errorbar(mean.index, mean, np.abs(bounds - mean.to_numpy()), fmt="o-", color=RED, capsize=3, label="ours")
        each.plot(published.index, published, "s--", color=BLUE, mfc="none", label="paper")
        each.set_title(panel.title, fontsize=11)
        each.set(xlabel=panel.label, ylabel=panel.measure.replace("_", " "))
        each.set_ylim(0, 1.1 * np.nanmax([*bounds[1:].flat, *mean, *published]))
        each.grid(alpha=0.3)
        for multiple in sorted({*mean.index.round(3), *published.index.round(3)}):
            found = np.flatnonzero(np.isclose(mean.index, multiple, atol=1e-3))
            cells = ["–"] * 3
            if len(found):
                (low, high), seeds = bounds[:, found[0]], groups.count().iloc[found[0]]
                cells = [f"{mean.iloc[found[0]]:.{digits}f}", f"{low:.{digits}f} to {high:.{digits}f}", str(seeds)]
                cells[1] = "–" if np.isnan(low) else cells[1]
            other = published[np.isclose(published.index, multiple, atol=1e-3)]
            cells.append(f"{other.iloc[0]:.{digits}f}" if len(other) else "–")
            unit = re.sub(r"α · ", "1/", panel.label)
            lines.append(f"| {panel.title} | {unit} | {multiple:g} | {' | '.join(cells)} |")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    for suffix in ("png", "svg"):
        figure.savefig(IMAGES / f"alpha.{suffix}", dpi=120)
    print("\n".join(lines))


if __name__ == "__main__":
    main()
