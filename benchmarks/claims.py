"""docs/results.md: the paper's claims one by one, what our runs say of them, and how sure that is; pages.py writes it.

Everything in it comes from benchmarks/results/*.csv. A run is measured by its mean over all evaluations (how fast it
learns, and how well) or by its last five (the end). Intervals are Welch's, over seeds.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd
from data import (
    BOTH,
    DDPG,
    DQN,
    EQUAL,
    GREEDY,
    MULTI,
    REENGAGE,
    RESULTS,
    SAC,
    SHORT,
    by_target_actor,
    greedy_return,
    markdown,
    of_curve,
    published_curve,
    runs,
)
from scipy import stats

NONE = 0.1  # a difference in success rate that counts as none
HEAD = f"""# Claims of the paper, one by one

`python benchmarks/pages.py` writes this page from the csv files in [benchmarks/results](../benchmarks/results), which
`python benchmarks/sweep.py GRID` makes.

**The rule.** Two variants are compared by the difference of their means over seeds, with Welch's 95 % interval (for
the greedy agent, whose score is known, Student's). A run counts by its mean over all evaluations, or by its last five
where the claim is about the end.

- *Reproduced*: the interval excludes zero in the paper's direction; where the paper sees no difference, it lies
  within ±{NONE}.
- *Not reproduced*: it lies on the other side of zero, or it includes zero and nothing as large as the paper's
  difference (by the target actor: as {NONE}); where the paper sees no difference, it lies outside ±{NONE}.
- *Undecided*: otherwise; more seeds are needed. The column *needed* says how many of each variant find a difference
  of the paper's size in four of five tries (Welch's interval, the spread of our runs); it is for planning.
- *By the target actor*: ddpg_her.py and ddpg_her_reengage.py evaluate the target actor, a running average of the
  actor's weights. The code that the paper builds on evaluates the actor, and we take its curves for the actor's, so
  that their size decides nothing in these rows.
- *Not run*: too few seeds, or runs that are too short for a claim about the end. A dash: the paper has no curve at
  these settings. *Post hoc*: compared after first results had been seen.

**What is compared.** On ContinuousSeek each method has the paper's best batch and learning rate for it, as in the
paper's figures, so that these rows do not isolate the gradient term. At d = 5 and 10 a baseline with ReenGAGE's batch
and learning rate has been run: by the target actor it is as good as ReenGAGE, by the actor worse. (The paper chose the
best by the area under the curve from a grid that has these, so that its gain there is at least that over the best: ≥.)
At d = 20 no such baseline has been run. By the target actor there is little to gain, because the first evaluation of a
run is 0 and the best mean 6/7 at d = 5 and 25/26 at d = 10: at d = 5 at most 0.09 over the best baseline, and over the
baseline with ReenGAGE's settings 0.04 at d = 5 and 0.07 at d = 10, less than the paper's gain. SAC has one batch and
learning rate for both, and its paper column is from the paper's grid there (with the best batch of each the paper sees
no gain at d = 5). The paper's column is the same difference in its curves, up to the length of our runs (where there
are none, to the end). On HandReach our batches are a tenth of the paper's, the settings were chosen with ReenGAGE, and
the paper's mean is over evaluations every 95,000 steps, ours every 20,000. Our networks on DriveSeek and NoisySeek are
smaller. *Seeds* are those of the variant and of what it is compared with.

**What the intervals leave out.** The paper's difference is taken as known, though it has a spread of its own. Claims,
rule and number of seeds were revised after first results had been seen, and nothing is corrected for the number of
rows. Runs of one seed are evaluated on the same episodes, which Welch's interval does not use. Where a row has several
commits, short trainings on a CPU learn the same with all of them ([csv](../benchmarks/results/same_training.csv)); runs
of one variant can be from several processors and from a GPU, though (the csv files say which).

**Not tested**: HandManipulateBlock (no gain at d = 7), SAC at d = 20, α = 0.1/d and 0.3/d at d = 20, DriveSeek with the
paper's networks and with convolutions, smaller α on sets of goals.
"""
LAW = """
**O(d) against O(d²)** transitions to learn a rotation ([theory_check.py](theory_check.md)): the fitted exponent of d in
their number. *Reproduced*: it is within 0.5 of the exponent of the paper's law, its interval within 1 (the other law's
exponent is 1 away), and no trial needs fewer transitions than the law says. The laws, d − 1 and d(d − 1)/2 transitions,
are not pure powers: over the dimensions measured they have slopes of their own.
"""
COST = """
**What the gradient term costs** in time: per training step (`benchmarks/speed.py`), and over whole runs (medians over
seeds; other work ran beside some), from the smallest to the largest value over machines and numbers of threads. The
paper's Table 5 has 41 % on ContinuousSeek, 34 % on HandReach, 40 % on DriveSeek and 60 % on NoisySeek.
"""


class Claim(NamedTuple):
    """What the paper says of two variants on an environment: the second is better (+1), worse (−1) or the same (0)."""

    text: str
    grid: str
    env_id: str
    base: str  # script and flags besides the environment
    variant: str
    direction: int = 1
    measure: str = "success_rate"
    end: int = 0  # the last five evaluations instead of all, of runs of at least so many steps
    short: str = ""  # its name in README's table
    bound: str = ""  # where the paper has no curve of base: the variant whose curve is at least as good

    @property
    def digits(self) -> int:
        return 1 if self.measure == "episodic_return" else 2


SEEK5, SEEK10, SEEK20, HAND = "ContinuousSeek5-v0", "ContinuousSeek10-v0", "ContinuousSeek20-v0", "HandReach-v2"
BITS, DRIVE, NOISY, RETURN = "BitFlip-v0", "DriveSeek-v0", "NoisySeek-v0", "episodic_return"
ACTOR, BOTH_SCRIPTS = "success_rate_actor", [f"{BOTH} --script {script}" for script in (DDPG, REENGAGE)]
AT_ONE_SETTING = {d: (BOTH_SCRIPTS[0] + flags, BOTH_SCRIPTS[1]) for d, flags in EQUAL.items()}
CLAIMS = [
    Claim(
        "ReenGAGE gains at d = 10 (post hoc)", "both_actors", SEEK10, *BOTH_SCRIPTS, measure=ACTOR,
        short="ContinuousSeek, d = 10: actor, each with its best settings",
    ),
    Claim(
        "– by the target actor", "continuousseek", SEEK10, DDPG, REENGAGE,
        short="– target actor, each with its best settings",
    ),
    Claim(
        "– both with ReenGAGE's settings (post hoc)", "both_actors", SEEK10, *AT_ONE_SETTING[10], measure=ACTOR,
        short="– actor, both with ReenGAGE's settings", bound=BOTH_SCRIPTS[0],
    ),
    Claim(
        "– both with ReenGAGE's settings, by the target actor (post hoc)", "both_actors", SEEK10, *AT_ONE_SETTING[10],
        short="– target actor, both with ReenGAGE's settings", bound=BOTH_SCRIPTS[0],
    ),
    Claim(
        "It gains at d = 20 (post hoc; the first half)", "both_actors", SEEK20,
        *(script + SHORT for script in BOTH_SCRIPTS), measure=ACTOR,
        short="ContinuousSeek, d = 20: actor, each with its best settings",
    ),
    Claim("– by the target actor, to the end", "continuousseek", SEEK20, DDPG, REENGAGE),
    Claim("It gains a little at d = 5 (post hoc)", "both_actors", SEEK5, *BOTH_SCRIPTS, measure=ACTOR),
    Claim("– by the target actor", "continuousseek", SEEK5, DDPG, REENGAGE),
    Claim(
        "– both with ReenGAGE's settings (post hoc)", "both_actors", SEEK5, *AT_ONE_SETTING[5], measure=ACTOR,
        bound=BOTH_SCRIPTS[0],
    ),
    Claim(
        "– both with ReenGAGE's settings, by the target actor (post hoc)", "both_actors", SEEK5, *AT_ONE_SETTING[5],
        bound=BOTH_SCRIPTS[0],
    ),
    Claim("α = 0.1/d gains, too (d = 10)", "continuousseek", SEEK10, DDPG, f"{REENGAGE} --alpha 0.01"),
    Claim("α = 0.3/d gains, too (d = 10)", "continuousseek", SEEK10, DDPG, f"{REENGAGE} --alpha 0.03"),
    Claim(
        "HandReach is learned faster (α = 0.15/d; paper 0.1/d)", "handreach", HAND, DDPG, f"{REENGAGE} --alpha 0.01",
        short="HandReach: target actor",
    ),
    Claim(
        "HandReach ends the same (the same α)", "handreach", HAND, DDPG, f"{REENGAGE} --alpha 0.01", 0, end=4_750_000
    ),
    Claim(
        "Too large an α hurts in the end (0.3/d; paper 0.2/d)", "handreach", HAND, DDPG, f"{REENGAGE} --alpha 0.02",
        -1, end=4_750_000,
    ),
    Claim("DQN gains on BitFlip, d = 40", "bitflip", BITS, f"{DQN} --alpha 0", DQN, short="BitFlip, 40 bits (DQN)"),
    Claim("It gains a little at d = 20", "bitflip", "BitFlip20-v0", f"{DQN} --alpha 0", DQN),
    Claim("The soft target in the gradient term gains over τ = 0", "bitflip", BITS, f"{DQN} --temperature 0", DQN),
    Claim(
        "The soft target in both terms is worse than none", "bitflip", BITS, f"{DQN} --alpha 0",
        f"{DQN} --soft-target both", -1,
    ),
    Claim(
        "SAC gains at d = 10 (batch 512)", "sac", SEEK10, f"{SAC} --alpha 0", f"{SAC} --alpha 0.02",
        short="ContinuousSeek, d = 10 (SAC)",
    ),
    Claim(
        "SAC gains at d = 5 (batch 512, which is not the paper's best)", "sac", SEEK5, f"{SAC} --alpha 0",
        f"{SAC} --alpha 0.04",
    ),
    Claim(
        "Gate gradients gain on DriveSeek", "multi", DRIVE, f"{MULTI} --alpha 0", f"{MULTI} --alpha 0.1", 1, RETURN,
        short="DriveSeek: steps on a goal, of 40",
    ),
    Claim(
        "Gate gradients gain on NoisySeek", "multi", NOISY, f"{MULTI} --alpha 0", f"{MULTI} --alpha 0.5", 1, RETURN,
        short="NoisySeek: steps on a goal, of 40",
    ),
    Claim("DDPG ends above the greedy agent", "multi", NOISY, GREEDY, f"{MULTI} --alpha 0", 1, RETURN, end=80_000),
    Claim("Gate gradients do, too", "multi", NOISY, GREEDY, f"{MULTI} --alpha 0.5", 1, RETURN, end=80_000),
    Claim(
        "Sharing the encoder matters", "multi", DRIVE, f"{MULTI} --alpha 0.1 --separate-encoders",
        f"{MULTI} --alpha 0.1", 1, RETURN,
    ),
]  # fmt: skip

RUNS = [  # grid, environment, and two variants that differ by the gradient term alone
    ("handreach", HAND, DDPG, f"{REENGAGE} --alpha 0.01"),
    ("sac", SEEK5, f"{SAC} --alpha 0", f"{SAC} --alpha 0.04"),
    ("sac", SEEK10, f"{SAC} --alpha 0", f"{SAC} --alpha 0.02"),
    ("bitflip", BITS, f"{DQN} --alpha 0", DQN),
    ("bitflip", "BitFlip20-v0", f"{DQN} --alpha 0", DQN),
    ("multi", DRIVE, f"{MULTI} --alpha 0", f"{MULTI} --alpha 0.1"),
    ("multi", NOISY, f"{MULTI} --alpha 0", f"{MULTI} --alpha 0.5"),
]


def ours(claim: Claim, variant: str) -> tuple[np.ndarray, set[str], int]:
    """One number for each seed, the commits that made the runs, and their length in steps; of the greedy agent one."""
    if variant == GREEDY:
        return np.array([greedy_return()]), set(), claim.end
    rows = runs(claim.grid)
    rows = rows[(rows.env_id == claim.env_id) & (rows.variant == variant)]
    values = rows.groupby("seed")[claim.measure].apply(of_curve, end=bool(claim.end)).to_numpy()
    return values, set(rows.commit), rows.global_step.max()


def papers(claim: Claim, last_step: float) -> float:
    """The difference in the paper's curves up to a step; where there are none, in its grid's means; else nan."""
    variants = (claim.bound or claim.base, claim.variant)
    curves = [published_curve(claim.env_id, variant, last_step) for variant in variants]
    if any(curve is None for curve in curves):
        grid = pd.read_csv(RESULTS / "paper_grid.csv").set_index(["env_id", "variant"])["mean"]
        return grid.get((claim.env_id, claim.variant), np.nan) - grid.get((claim.env_id, claim.base), np.nan)
    base, variant = (of_curve(curve["mean"], bool(claim.end)) for curve in curves)
    return variant - base


def interval(base: np.ndarray, variant: np.ndarray) -> tuple[float, float]:
    """95 % interval of the difference of means; a single number is one that is known."""
    if len(base) == 1:
        return tuple(stats.ttest_1samp(variant - base, 0).confidence_interval())
    return tuple(stats.ttest_ind(variant, base, equal_var=False).confidence_interval())


def seeds_needed(base: np.ndarray, variant: np.ndarray, difference: float) -> str:
    """Seeds of each variant with which Welch's interval excludes zero four times in five; base may be one number."""
    one, other = (values.var(ddof=1) if len(values) > 1 else 0.0 for values in (base, variant))
    n = np.arange(2, 200)
    freedom = (n - 1) * (one + other) ** 2 / (one**2 + other**2)
    power = stats.nct.sf(stats.t.ppf(0.975, freedom), freedom, abs(difference) * np.sqrt(n / (one + other)))
    enough = n[power >= 0.8]
    return str(enough[0]) if len(enough) else "–" if np.isnan(difference) else f"> {n[-1]}"


def verdict(low: float, high: float, published: float, direction: int) -> str:
    """By the rule that stands above the table; published is nan where the paper's difference is no measure."""
    if direction == 0:
        holds, fails = -NONE <= low <= high <= NONE, low > NONE or high < -NONE
    else:
        worst, best = sorted((direction * low, direction * high))
        holds, fails = worst > 0, best < max(0, NONE if np.isnan(published) else direction * published)
    return "**reproduced**" if holds else "**not reproduced**" if fails else "undecided"


def judge(claim: Claim) -> dict[str, str]:
    """A row of the table."""
    row, digits = {"claim": claim.text, "environment": claim.env_id}, claim.digits
    (base, one, last), (variant, other, other_last) = ours(claim, claim.base), ours(claim, claim.variant)
    last = min(last, other_last)
    one_seed, too_short = len(variant) < 2 or (len(base) < 2 and claim.base != GREEDY), last < claim.end
    published = papers(claim, np.inf if one_seed or too_short else last)
    row["paper"] = "–" if np.isnan(published) else f"{'≥ ' * bool(claim.bound)}{published:+.{digits}f}"
    if one_seed or too_short:
        rest = dict.fromkeys(("ours", "95 % interval", "seeds", "needed", "verdict", "commit"), "–")
        return row | rest | {"verdict": "not run (one seed)" if one_seed else "not run (too short)"}
    low, high = interval(base, variant)
    target_actor = by_target_actor(claim.variant, claim.measure)
    said = "–"
    if not np.isnan(published):
        said = verdict(low, high, np.nan if target_actor else published, claim.direction)
        said += ", by the target actor" * target_actor
    return row | {
        "ours": f"{variant.mean() - base.mean():+.{digits}f}",
        "95 % interval": f"{low:+.{digits}f} to {high:+.{digits}f}",
        "seeds": f"{len(variant)}" if claim.base == GREEDY else f"{len(variant)}, {len(base)}",
        "needed": "–" if target_actor or not claim.direction else seeds_needed(base, variant, published),
        "verdict": said,
        "commit": ", ".join(sorted(one | other)),
    }


def in_short() -> str:
    """README's table: some of the claims, with the means themselves."""
    table = []
    for claim in CLAIMS:
        if claim.short:
            row, digits = judge(claim), claim.digits
            without, with_term = (ours(claim, which)[0].mean() for which in (claim.base, claim.variant))
            cells = {"mean over all evaluations": claim.short}
            cells |= {"without": f"{without:.{digits}f}", "with": f"{with_term:.{digits}f}"}
            cells |= {"difference": f"{row['ours']} ({row['95 % interval']})", "paper": row["paper"]}
            cells |= {"seeds of each": row["seeds"].split(", ")[0], "verdict": row["verdict"]}
            table.append(cells)
    return markdown(table)


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
    added = []  # what, by how much, where

    def add(what: str, time: pd.Series, plain: str, full: str, machine: str) -> None:
        if plain in time and full in time:
            added.append((what, 100 * (time[full] / time[plain] - 1), machine.split(",")[0]))

    rows = pd.read_csv(RESULTS / "speed.csv")
    for (machine, _), group in rows.groupby(["machine", "threads"]):
        time = group.set_index("what").ms_median
        add("a step of DDPG, ContinuousSeek-v0", time, f"{DDPG}.py", f"{REENGAGE}.py", machine)
        for name, script in (("SAC, ContinuousSeek-v0", SAC), ("DQN, BitFlip-v0", DQN)):
            add(f"a step of {name}", time, f"{script}.py --alpha 0", f"{script}.py", machine)
    for grid, env_id, plain, full in RUNS:
        rows = runs(grid)
        rows = rows[(rows.env_id == env_id) & rows.variant.isin([plain, full])]
        for machine, group in rows.groupby("machine"):
            time = group.groupby(["variant", "seed"]).wall_seconds.max().groupby("variant").median()
            add(f"a run of {full.split()[0].split('_')[0].upper()}, {env_id}", time, plain, full, machine)
    table = []
    for what, group in pd.DataFrame(added, columns=["what", "more", "machine"]).groupby("what", sort=False):
        low, high = (f"{value:+.0f} %" for value in (group.more.min(), group.more.max()))
        more = low if low == high else f"{low} to {high}"
        table.append({"": what, "the gradient term adds": more, "machines": ", ".join(group.machine.unique())})
    return markdown(table)


def page() -> str:
    """docs/results.md."""
    return "\n".join([HEAD, markdown([judge(claim) for claim in CLAIMS]), LAW, theory(), COST, cost(), ""])
