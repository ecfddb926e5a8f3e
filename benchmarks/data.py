"""The csv files of benchmarks/results, as the tables and figures of the pages read them.

Importing it lets the scripts and envs.py be imported.
"""

import functools
import sys
from pathlib import Path

import numpy as np
import pandas as pd

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT))
RESULTS = ROOT / "benchmarks" / "results"
DDPG, REENGAGE, SAC = "ddpg_her", "ddpg_her_reengage", "sac_her_reengage"
DQN, MULTI = "dqn_her_reengage", "ddpg_multi_reengage"
RULE = "benchmarks/alpha_rule"  # which takes a script
SMALL = "--hidden-size 64 --batch-size 128 --total-timesteps 80000"  # grid multi: a size that a CPU can afford
FULL = "--total-timesteps 20000"  # grid multi_full: the paper's size, until its curve with gate gradients is at 17.3
SHORT = " --total-timesteps 200000"  # of grid both_actors, d = 20
# d → ReenGAGE's batch and learning rate on ContinuousSeek, for the baseline
EQUAL = {
    5: " --learning-rate 1.5e-3",
    10: " --batch-size 512 --learning-rate 1e-3",
    20: f" --batch-size 128{SHORT}",
}
EPOCH = 19 * 2 * 50 * 50  # HandReach's steps in the paper: workers, episodes per worker and cycle, steps, cycles
GREEDY = "greedy"  # NoisySeek's agent that is not trained
# environment → variant → the paper's panel and α
PAPER = {
    "ContinuousSeek5-v0": {
        DDPG: ("continuousseek_d5_lr0.001_batch512", None),
        REENGAGE: ("continuousseek_d5_lr0.0015_batch512", "0.2/d"),
        f"{REENGAGE} --alpha 0.02": ("continuousseek_d5_lr0.0015_batch512", "0.1/d"),
        f"{REENGAGE} --alpha 0.06": ("continuousseek_d5_lr0.0015_batch512", "0.3/d"),
    },
    "ContinuousSeek10-v0": {
        DDPG: ("continuousseek_d10_lr0.0005_batch256", None),
        REENGAGE: ("continuousseek_d10_lr0.001_batch512", "0.2/d"),
        f"{REENGAGE} --alpha 0.01": ("continuousseek_d10_lr0.001_batch512", "0.1/d"),
        f"{REENGAGE} --alpha 0.03": ("continuousseek_d10_lr0.001_batch512", "0.3/d"),
        f"{SAC} --alpha 0.02": ("continuousseek_sac_d10_best", "0.2/d"),
    },
    "ContinuousSeek20-v0": {
        DDPG: ("continuousseek_d20_lr0.0005_batch256", None),
        REENGAGE: ("continuousseek_d20_lr0.0005_batch128", "0.2/d"),
        DDPG + SHORT: ("continuousseek_d20_lr0.0005_batch256", None),
        REENGAGE + SHORT: ("continuousseek_d20_lr0.0005_batch128", "0.2/d"),
    },
    "HandReach-v2": {
        DDPG: ("handreach_normalized", None),
        f"{REENGAGE} --alpha 0.01": ("handreach_normalized", "0.1*sigma^2/d"),  # ours is between it and the next
        f"{REENGAGE} --alpha 0.02": ("handreach_normalized", "0.2*sigma^2/d"),
    },
    "BitFlip20-v0": {
        f"{DQN} --alpha 0": ("bitflip_d20_gradonly_tau0.5", None),
        DQN: ("bitflip_d20_gradonly_tau0.5", "1.0/d"),
        f"{DQN} --temperature 0": ("bitflip_d20_tau0.0", "1.0/d"),
        f"{DQN} --temperature 1": ("bitflip_d20_gradonly_tau1.0", "1.0/d"),
    },
    "BitFlip-v0": {
        f"{DQN} --alpha 0": ("bitflip_d40_gradonly_tau0.5", None),
        DQN: ("bitflip_d40_gradonly_tau0.5", "1.0/d"),
        f"{DQN} --temperature 0": ("bitflip_d40_tau0.0", "1.0/d"),
        f"{DQN} --temperature 1": ("bitflip_d40_gradonly_tau1.0", "1.0/d"),
        f"{DQN} --soft-target both": ("bitflip_d40_bothterms_tau0.5", "1.0/d"),
    },
    "DriveSeek-v0": {
        f"{MULTI} --alpha 0": ("driveseek_sharing", None),
        f"{MULTI} --alpha 0.1": ("driveseek_sharing", "20/n_max"),
        f"{MULTI} --alpha 0.1 --separate-encoders": ("driveseek_nosharing", "20/n_max"),
    },
    "NoisySeek-v0": {
        GREEDY: ("noisyseek_allalpha", GREEDY),
        f"{MULTI} --alpha 0": ("noisyseek_allalpha", None),
        f"{MULTI} --alpha 0.5": ("noisyseek_allalpha", "100/n_max"),
    },
}


def by_target_actor(variant: str, measure: str) -> bool:
    """Whether a variant's measure shows the target actor, and not what acts, as the paper's."""
    return measure == "success_rate" and variant.split()[0] in (DDPG, REENGAGE)


def evaluations(path: Path) -> pd.DataFrame:
    """A grid's csv: the evaluations of its finished runs, one row each."""
    return pd.read_csv(path, dtype=dict(commit=str)).fillna(dict(commit=""))  # made without git's history


@functools.cache
def runs(grid: str) -> pd.DataFrame:
    """The evaluations of a grid's runs with the columns env_id and variant.

    Raises ValueError where the runs of a variant are not evaluated at the same steps.
    """
    rows = evaluations(RESULTS / f"{grid}.csv")
    names = pd.DataFrame(map(variant_of, rows.script, rows["flags"]), columns=["env_id", "variant"])
    rows = rows.join(names)
    steps = rows.groupby(["env_id", "variant", "seed"]).global_step.apply(tuple)
    first = steps.groupby(["env_id", "variant"]).transform("first")
    wrong = steps[(steps != first) | (steps.map(lambda each: list(each) != sorted(set(each))))]
    if len(wrong):
        raise ValueError(f"{grid}.csv: these lack evaluations, or have some twice: {list(wrong.index)}")
    return rows


def variant_of(script: str, flags: str) -> tuple[str, str]:
    """The environment of a run, and its variant: the script and its other flags, without SMALL and FULL."""
    _, env_id, *others = flags.split()
    return env_id, " ".join([script, *others]).removesuffix(f" {SMALL}").removesuffix(f" {FULL}")


def paper_curve(panel: str, alpha: str | None, last_step: float = np.inf) -> pd.DataFrame:
    """The paper's mean and std at each evaluation up to a step, by steps; alpha None is the baseline."""
    rows = pd.read_csv(RESULTS / "paper_curves.csv")
    rows = rows[(rows.panel == panel) & ((rows.method == "Greedy") == (alpha == GREEDY))]
    rows = rows[rows.alpha.isna() if alpha in (None, GREEDY) else rows.alpha == alpha]
    epochs = rows.x_name == "epoch"  # epoch 0 is evaluated after its training
    rows = rows.assign(x=rows.x.where(~epochs, (rows.x + 1) * EPOCH)).set_index("x")
    return rows.loc[:last_step, ["mean", "std"]]


def published_curve(env_id: str, variant: str, last_step: float = np.inf) -> pd.DataFrame | None:
    """The paper's mean and std at each evaluation up to a step, by steps; None where it has no such curve."""
    known = PAPER.get(env_id, {}).get(variant)
    return paper_curve(*known, last_step) if known else None


def of_curve(curve: pd.Series, end: bool = False) -> float:
    """What a curve, evaluation by evaluation, counts by: its mean, or that of its last five evaluations."""
    return (curve.iloc[-5:] if end else curve).mean(skipna=False)


def greedy_return() -> float:
    """The mean return of NoisySeek's greedy agent (greedy.py)."""
    return pd.read_csv(RESULTS / "noisyseek_greedy.csv").episodic_return[0]


def merge(name: str, rows: pd.DataFrame, key: list[str]) -> None:
    """Writes rows to a csv of results, in the place of all that have one of their keys."""
    path = RESULTS / f"{name}.csv"
    if path.exists():
        others = pd.read_csv(path)
        replaced = others.set_index(key).index.isin(rows.set_index(key).index)
        rows = pd.concat([others[~replaced], rows])
    rows.to_csv(path, index=False)


def markdown(rows: list[dict[str, str]]) -> str:
    """A table of rows that have the same columns in the same order."""
    lines = [list(rows[0]), ["---"] * len(rows[0]), *(list(row.values()) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
