"""The csv files of benchmarks/results, as plot.py, plot_alpha.py and claims.py read them."""

from pathlib import Path

import numpy as np
import pandas as pd

RESULTS = Path(__file__).resolve().parent / "results"
STEP_WISE = "4f8b65d"  # the last commit before the scripts' form of rounds
SMALL = " --hidden-size 64 --batch-size 128 --total-timesteps 80000"  # of grid multi, the same for all variants
EPOCH = 19 * 2 * 50 * 50  # HandReach's steps in the paper: workers, episodes per worker and cycle, steps, cycles
GREEDY = "greedy"  # NoisySeek's agent that is not trained


def runs(grid: str) -> pd.DataFrame:
    """The evaluations of a grid's runs with the columns env_id and variant, the script and its other flags.

    Where a variant has been run anew since the step-wise form, runs of that form are left out.
    """
    rows = pd.read_csv(RESULTS / f"{grid}.csv", dtype=dict(commit=str))
    old = rows.commit == STEP_WISE
    rows = rows[~old | old.groupby([rows.script, rows["flags"]]).transform("all")]
    variant = rows.script + rows["flags"].str.replace(r"--env-id \S+", "", regex=True).str.rstrip()
    return rows.assign(env_id=rows["flags"].str.extract(r"--env-id (\S+)")[0], variant=variant.str.removesuffix(SMALL))


def paper_curve(panel: str, alpha: str | None, last_step: float = np.inf) -> pd.DataFrame:
    """The paper's mean and std at each evaluation up to a step, by steps; alpha None is the baseline."""
    rows = pd.read_csv(RESULTS / "paper_curves.csv")
    rows = rows[(rows.panel == panel) & ((rows.method == "Greedy") == (alpha == GREEDY))]
    rows = rows[rows.alpha.isna() if alpha in (None, GREEDY) else rows.alpha == alpha]
    epochs = rows.x_name == "epoch"  # epoch 0 is evaluated after its training
    rows = rows.assign(x=rows.x.where(~epochs, (rows.x + 1) * EPOCH)).set_index("x")
    return rows.loc[:last_step, ["mean", "std"]]


def of_curve(curve: pd.Series, end: bool = False) -> float:
    """What a curve, evaluation by evaluation, counts by: its mean, or that of its last five evaluations."""
    return curve.iloc[-5:].mean() if end else curve.mean()
