"""Prints docs/results.md: the paper's claims one by one, what our runs say of them, and how sure that is.

    python benchmarks/claims.py > docs/results.md

Everything in it comes from benchmarks/results/*.csv. A run is measured by its mean over all evaluations (how fast it
learns, and how well) or by its last five (the end). Intervals are 95 % bootstrap intervals over seeds.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd
from data import GREEDY, RESULTS, STEP_WISE, of_curve, paper_curve, runs
from scipy import stats

SAME = 0.1  # a difference in success rate that counts as none
HEAD = f"""# The paper's claims, one by one

`python benchmarks/claims.py > docs/results.md` prints this page from the csv files in
[benchmarks/results](../benchmarks/results); the command of each grid is `python benchmarks/sweep.py GRID`.

**The rule.** Two variants are compared by the difference of their means over seeds, with a 95 % bootstrap interval
(10,000 resamples of the seeds of each). A run counts by its mean over all evaluations, or by its last five where the
claim is about the end. *Reproduced*: the interval excludes zero in the paper's direction; where the paper sees no
difference, it lies within ±{SAME}. *Not reproduced*: otherwise. *Not run*: fewer than two seeds, or runs that are too
short for a claim about the end. The paper's column is the same difference in its curves, up to the length of our runs,
and for SAC in its grid at our batch and learning rate (with each α's best batch it sees no gain at d = 5).
Rows of commit {STEP_WISE} are from the scripts' step-wise form; runs of the form of rounds take their place.

**Power.** The column *needed* says how many seeds of each variant find a difference of the paper's size in four of
five tries at the 5 % level, given the spread of our runs. With three seeds a bootstrap interval is narrower than it
should be.
"""


COST = """
**What the gradient term costs** in time: per training step (`benchmarks/speed.py`), and over whole runs, medians over
seeds on one machine. Runs beside each other slow each other, so these are rough. The paper's Table 5 has 41 % on
ContinuousSeek, 34 % on HandReach, 40 % on DriveSeek and 60 % on NoisySeek.
"""


class Claim(NamedTuple):
    """What the paper says of two variants on an environment: the second is better (+1), worse (−1) or the same (0)."""

    text: str
    grid: str
    env_id: str
    base: str  # script and flags besides the environment
    variant: str
    direction: int
    paper: tuple[tuple[str, str | None], tuple[str, str | None]] | None = None  # panel and α; None: paper_grid.csv
    measure: str = "success_rate"
    end: int = 0  # the last five evaluations instead of all, of runs of at least so many steps


DDPG, SAC, DQN, MULTI = "ddpg_her", "sac_her_reengage", "dqn_her_reengage", "ddpg_multi_reengage"
REENGAGE, RETURN = "ddpg_her_reengage", "episodic_return"
SEEK, HAND, BITS = "continuousseek_d", "handreach_normalized", "bitflip_d40_"
SEEK5 = f"{SEEK}5_lr0.001_batch512", f"{SEEK}5_lr0.0015_batch512"  # the baseline's and ReenGAGE's best settings
SEEK10 = f"{SEEK}10_lr0.0005_batch256", f"{SEEK}10_lr0.001_batch512"
CLAIMS = [
    Claim(
        "The gradient term gains at d = 10", "continuousseek", "ContinuousSeek10-v0", DDPG, REENGAGE, 1,
        ((SEEK10[0], None), (SEEK10[1], "0.2/d")),
    ),
    Claim(
        "It gains at d = 20", "continuousseek", "ContinuousSeek20-v0", DDPG, REENGAGE, 1,
        ((f"{SEEK}20_lr0.0005_batch256", None), (f"{SEEK}20_lr0.0005_batch128", "0.2/d")),
    ),
    Claim(
        "It gains little at d = 5", "continuousseek", "ContinuousSeek5-v0", DDPG, REENGAGE, 0,
        ((SEEK5[0], None), (SEEK5[1], "0.2/d")),
    ),
    Claim(
        "α = 0.1/d gains, too (d = 10)", "continuousseek", "ContinuousSeek10-v0", DDPG, f"{REENGAGE} --alpha 0.01", 1,
        ((SEEK10[0], None), (SEEK10[1], "0.1/d")),
    ),
    Claim(
        "α = 0.3/d gains, too (d = 10)", "continuousseek", "ContinuousSeek10-v0", DDPG, f"{REENGAGE} --alpha 0.03", 1,
        ((SEEK10[0], None), (SEEK10[1], "0.3/d")),
    ),
    Claim(
        "HandReach is learned faster (α = 0.15/d; paper 0.1/d)", "handreach", "HandReach-v2", DDPG,
        f"{REENGAGE} --alpha 0.01", 1, ((HAND, None), (HAND, "0.1*sigma^2/d")),
    ),
    Claim(
        "HandReach ends the same (the same α)", "handreach", "HandReach-v2", DDPG, f"{REENGAGE} --alpha 0.01", 0,
        ((HAND, None), (HAND, "0.1*sigma^2/d")), end=4_750_000,
    ),
    Claim(
        "Too large an α hurts in the end (0.3/d; paper 0.2/d)", "handreach", "HandReach-v2", DDPG,
        f"{REENGAGE} --alpha 0.02", -1, ((HAND, None), (HAND, "0.2*sigma^2/d")), end=4_750_000,
    ),
    Claim(
        "BitFlip, d = 40, gains with the gradient term", "bitflip", "BitFlip-v0", f"{DQN} --alpha 0", DQN, 1,
        ((f"{BITS}gradonly_tau0.5", None), (f"{BITS}gradonly_tau0.5", "1.0/d")),
    ),
    Claim(
        "The soft target in both terms fails", "bitflip", "BitFlip-v0", f"{DQN} --alpha 0",
        f"{DQN} --soft-target both", -1, ((f"{BITS}bothterms_tau0.5", None), (f"{BITS}bothterms_tau0.5", "1.0/d")),
    ),
    Claim("SAC gains at d = 10", "sac", "ContinuousSeek10-v0", f"{SAC} --alpha 0", f"{SAC} --alpha 0.02", 1),
    Claim("SAC gains at d = 5", "sac", "ContinuousSeek5-v0", f"{SAC} --alpha 0", f"{SAC} --alpha 0.04", 1),
    Claim(
        "Gate gradients gain on DriveSeek", "multi", "DriveSeek-v0", f"{MULTI} --alpha 0", f"{MULTI} --alpha 0.1", 1,
        (("driveseek_sharing", None), ("driveseek_sharing", "20/n_max")), RETURN,
    ),
    Claim(
        "Gate gradients gain on NoisySeek", "multi", "NoisySeek-v0", f"{MULTI} --alpha 0", f"{MULTI} --alpha 0.5", 1,
        (("noisyseek_allalpha", None), ("noisyseek_allalpha", "100/n_max")), RETURN,
    ),
    Claim(
        "DDPG beats the greedy agent", "multi", "NoisySeek-v0", GREEDY, f"{MULTI} --alpha 0", 1,
        (("noisyseek_allalpha", GREEDY), ("noisyseek_allalpha", None)), RETURN, end=80_000,
    ),
    Claim(
        "Gate gradients beat the greedy agent", "multi", "NoisySeek-v0", GREEDY, f"{MULTI} --alpha 0.5", 1,
        (("noisyseek_allalpha", GREEDY), ("noisyseek_allalpha", "100/n_max")), RETURN, end=80_000,
    ),
    Claim(
        "Sharing the encoder matters", "multi", "DriveSeek-v0", f"{MULTI} --alpha 0.1 --separate-encoders",
        f"{MULTI} --alpha 0.1", 1, (("driveseek_nosharing", "20/n_max"), ("driveseek_sharing", "20/n_max")), RETURN,
    ),
]  # fmt: skip

STEPS = (("ContinuousSeek-v0", SAC), ("BitFlip-v0", DQN))  # besides DDPG, what speed.py measures
RUNS = [  # grid, environment, and two variants that differ by the gradient term alone
    ("handreach", "HandReach-v2", DDPG, f"{REENGAGE} --alpha 0.01"),
    ("sac", "ContinuousSeek5-v0", f"{SAC} --alpha 0", f"{SAC} --alpha 0.04"),
    ("sac", "ContinuousSeek10-v0", f"{SAC} --alpha 0", f"{SAC} --alpha 0.02"),
    ("bitflip", "BitFlip-v0", f"{DQN} --alpha 0", DQN),
    ("bitflip", "BitFlip20-v0", f"{DQN} --alpha 0", DQN),
    ("multi", "DriveSeek-v0", f"{MULTI} --alpha 0", f"{MULTI} --alpha 0.1"),
    ("multi", "NoisySeek-v0", f"{MULTI} --alpha 0", f"{MULTI} --alpha 0.5"),
]


def ours(claim: Claim, variant: str) -> tuple[np.ndarray, set[str], int]:
    """One number for each seed, the commits that made the runs, and their length in steps."""
    if variant == GREEDY:  # from so many episodes that it counts as known
        return pd.read_csv(RESULTS / "noisyseek_greedy.csv").episodic_return.repeat(2).to_numpy(), set(), claim.end
    rows = runs(claim.grid)
    rows = rows[(rows.env_id == claim.env_id) & (rows.variant == variant)]
    values = rows.groupby("seed")[claim.measure].apply(of_curve, end=bool(claim.end)).to_numpy()
    return values, set(rows.commit), rows.global_step.max()


def papers(claim: Claim, last_step: float) -> float:
    """The difference in the paper's curves up to a step; where it has none at our settings, in its grid's means."""
    if claim.paper is None:
        grid = pd.read_csv(RESULTS / "paper_grid.csv").set_index(["env_id", "variant"])["mean"]
        return grid[claim.env_id, claim.variant] - grid[claim.env_id, claim.base]
    base, variant = (of_curve(paper_curve(*each, last_step)["mean"], bool(claim.end)) for each in claim.paper)
    return variant - base


def seeds_needed(base: np.ndarray, variant: np.ndarray, difference: float) -> int:
    """Seeds of each variant that find the difference with a power of 0.8 at the two-sided level of 0.05."""
    variance = (base.var(ddof=1) + variant.var(ddof=1)) / 2
    quantiles = stats.norm.ppf(0.975) + stats.norm.ppf(0.8)
    return max(2, int(np.ceil(2 * variance * (quantiles / difference) ** 2)))


def judge(claim: Claim) -> dict[str, str]:
    """A row of the table."""
    row, digits = {"claim": claim.text, "environment": claim.env_id}, 1 if claim.measure == RETURN else 2
    (base, one, last), (variant, other, _) = ours(claim, claim.base), ours(claim, claim.variant)
    too_few = min(len(base), len(variant)) < 2 or last < claim.end
    published = papers(claim, np.inf if too_few else last)
    row["paper"] = f"{published:+.{digits}f}"
    if too_few:
        missing = dict.fromkeys(("ours", "95 % interval", "seeds", "needed", "verdict", "commit"), "–")
        return row | missing | {"verdict": "not run"}
    low, high = stats.bootstrap(
        (variant, base), lambda a, b, axis: a.mean(axis) - b.mean(axis), n_resamples=10_000, method="percentile",
        rng=np.random.default_rng(0), vectorized=True,
    ).confidence_interval  # fmt: skip
    same = -SAME <= low <= high <= SAME
    holds = min(claim.direction * low, claim.direction * high) > 0 if claim.direction else same
    return row | {
        "ours": f"{variant.mean() - base.mean():+.{digits}f}",
        "95 % interval": f"{low:+.{digits}f} to {high:+.{digits}f}",
        "seeds": str(len(variant)) if claim.base == GREEDY else f"{len(variant)}, {len(base)}",
        "needed": str(seeds_needed(base, variant, published)) if claim.direction else "–",
        "verdict": "**reproduced**" if holds else "**not reproduced**",
        "commit": ", ".join(sorted(one | other)),
    }


def markdown(rows: list[dict[str, str]]) -> str:
    lines = [list(rows[0]), ["---"] * len(rows[0]), *(list(row.values()) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def theory() -> str:
    """O(d) against O(d²), from theory_check.py's csv."""
    rows = pd.read_csv(RESULTS / "theory_check_exponents.csv")
    rows = rows[(rows.measurement == "learning") & rows.method.isin(["ReenGAGE", "DDPG"])]
    table = [
        {
            "family": row.family, "method": row.method, "exponent of d": f"{row.exponent:.2f}",
            "95 % interval": f"{row.low:.2f} to {row.high:.2f}", "of the paper's law": f"{row.exponent_of_theory:.2f}",
            "verdict": "**reproduced**" if row.holds else "**not reproduced**",
        }
        for row in rows.itertuples()
    ]  # fmt: skip
    return markdown(table)


def cost() -> str:
    """What the gradient term adds to a training step, from speed.py's csv, and to whole runs, from the grids'."""
    table, rows = [], pd.read_csv(RESULTS / "speed.csv")
    pairs = {"ContinuousSeek-v0, DDPG": (f"{DDPG}.py", f"{REENGAGE}.py")}
    pairs |= {f"{env_id}, {script[:3].upper()}": (f"{script}.py --alpha 0", f"{script}.py") for env_id, script in STEPS}

    def add(what: str, more: float, machine: str) -> None:
        table.append({"": what, "the gradient term adds": f"{100 * (more - 1):+.0f} %", "machine": machine})

    for (machine, threads), group in rows.groupby(["machine", "threads"]):
        time = group.set_index("what").ms_median
        for name, (plain, full) in pairs.items():
            if plain in time and full in time:
                add(f"{name}, a step, {threads} thread{'s' * (threads > 1)}", time[full] / time[plain], machine)
    for grid, env_id, plain, full in RUNS:
        rows = runs(grid)
        rows = rows[(rows.env_id == env_id) & rows.variant.isin([plain, full])]
        for (machine, commit), group in rows.groupby(["machine", "commit"]):
            time = group.groupby(["variant", "seed"]).wall_seconds.max().groupby("variant").median()
            if len(time) == 2:
                add(f"{env_id}, a run, {grid}.csv, commit {commit}", time[full] / time[plain], machine)
    return markdown(table)


def page() -> str:
    """docs/results.md."""
    law = "\n**O(d) against O(d²)** transitions to learn a rotation ([theory_check.py](theory_check.md)):\n"
    return "\n".join([HEAD, markdown([judge(claim) for claim in CLAIMS]), law, theory(), COST, cost()])


if __name__ == "__main__":
    print(page())
