"""Tables of docs/results.md: the paper's claims one by one, what our runs say of them, and how sure that is.

Everything in them comes from benchmarks/results/*.csv; the rule of the verdicts stands on that page. A run is measured
by its mean over all evaluations (how fast it learns, and how well) or by its last five (the end). Intervals are
Welch's, over seeds.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd
from data import (
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
from plot import MEASURES
from scipy import stats

NONE = 0.1  # a difference in success rate that counts as none


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
    base_grid: str = ""  # the grid of base, if it is another one
    looks: int = 1  # 2: three seeds had not decided it, and then there were more

    @property
    def digits(self) -> int:
        return 1 if self.measure == "episodic_return" else 2


SEEK5, SEEK10, SEEK20, HAND = "ContinuousSeek5-v0", "ContinuousSeek10-v0", "ContinuousSeek20-v0", "HandReach-v2"
BITS, DRIVE, NOISY, RETURN = "BitFlip-v0", "DriveSeek-v0", "NoisySeek-v0", "episodic_return"
ACTOR, AT_ONE_SETTING = "success_rate_actor", {d: (DDPG + EQUAL[d], REENGAGE) for d in (5, 10)}
CLAIMS = [
    Claim(
        "ReenGAGE gains at d = 10 (post hoc)", "both_actors", SEEK10, DDPG, REENGAGE, measure=ACTOR,
        short="ContinuousSeek, d = 10: actor, each with its best settings",
    ),
    Claim(
        "– by the target actor", "continuousseek", SEEK10, DDPG, REENGAGE,
        short="– target actor, each with its best settings",
    ),
    Claim(
        "– both with ReenGAGE's settings (post hoc)", "both_actors", SEEK10, *AT_ONE_SETTING[10], measure=ACTOR,
        short="– actor, both with ReenGAGE's settings", bound=DDPG,
    ),
    Claim(
        "– both with ReenGAGE's settings, by the target actor (post hoc)", "both_actors", SEEK10, *AT_ONE_SETTING[10],
        short="– target actor, both with ReenGAGE's settings", bound=DDPG,
    ),
    Claim(
        "It gains at d = 20 (post hoc; the first half)", "both_actors", SEEK20,
        DDPG + SHORT, REENGAGE + SHORT, measure=ACTOR, looks=2,
        short="ContinuousSeek, d = 20: actor, each with its best settings",
    ),
    Claim("– by the target actor, to the end", "continuousseek", SEEK20, DDPG, REENGAGE),
    Claim("It gains a little at d = 5 (post hoc)", "both_actors", SEEK5, DDPG, REENGAGE, measure=ACTOR),
    Claim("– by the target actor", "continuousseek", SEEK5, DDPG, REENGAGE),
    Claim(
        "– both with ReenGAGE's settings (post hoc)", "both_actors", SEEK5, *AT_ONE_SETTING[5], measure=ACTOR,
        bound=DDPG,
    ),
    Claim(
        "– both with ReenGAGE's settings, by the target actor (post hoc)", "both_actors", SEEK5, *AT_ONE_SETTING[5],
        bound=DDPG,
    ),
    *(
        claim
        for multiple, variant in ((0.1, f"{REENGAGE} --alpha 0.01"), (0.3, f"{REENGAGE} --alpha 0.03"))
        for claim in (
            Claim(f"α = {multiple}/d gains, too (d = 10)", "continuousseek", SEEK10, DDPG, variant),
            Claim(
                "– both with ReenGAGE's settings (post hoc)", "continuousseek", SEEK10, AT_ONE_SETTING[10][0], variant,
                bound=DDPG, base_grid="both_actors",
            ),
        )
    ),
    Claim(
        "HandReach is learned faster (α = 0.15/d; paper 0.1/d)", "handreach", HAND, DDPG, f"{REENGAGE} --alpha 0.01",
        short="HandReach: target actor", looks=2,
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
    Claim(
        "The soft target in the gradient term gains over τ = 0", "bitflip", BITS, f"{DQN} --temperature 0", DQN,
        short="– its soft target in the gradient term, instead of the hard one",
    ),
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
        f"{SAC} --alpha 0.04", looks=2,
    ),
    Claim(
        "Gate gradients gain on DriveSeek", "multi", DRIVE, f"{MULTI} --alpha 0", f"{MULTI} --alpha 0.1", 1, RETURN,
        short="DriveSeek: steps on a goal, of 40", looks=2,
    ),
    Claim(
        "Gate gradients gain on NoisySeek", "multi", NOISY, f"{MULTI} --alpha 0", f"{MULTI} --alpha 0.5", 1, RETURN,
        short="NoisySeek: steps on a goal, of 40", looks=2,
    ),
    Claim(
        "DDPG is above the greedy agent after 80,000 steps", "multi", NOISY, GREEDY, f"{MULTI} --alpha 0", 1, RETURN,
        end=80_000,
    ),
    Claim("Gate gradients are, too", "multi", NOISY, GREEDY, f"{MULTI} --alpha 0.5", 1, RETURN, end=80_000),
    Claim(
        "Sharing the encoder matters (at the paper's best α)", "multi", DRIVE,
        f"{MULTI} --alpha 0.1 --separate-encoders", f"{MULTI} --alpha 0.1", 1, RETURN, looks=2,
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


def rows_of(claim: Claim, variant: str) -> pd.DataFrame:
    """The evaluations of a claim's base or variant."""
    rows = runs(claim.base_grid if claim.base_grid and variant == claim.base else claim.grid)
    return rows[(rows.env_id == claim.env_id) & (rows.variant == variant)]


def ours(claim: Claim, variant: str, seeds: float = np.inf) -> np.ndarray | float:
    """One number for each seed, of the first so many; of the greedy agent its score, which has no spread."""
    if variant == GREEDY:
        return greedy_return()
    rows = rows_of(claim, variant)
    return rows[rows.seed <= seeds].groupby("seed")[claim.measure].apply(of_curve, end=bool(claim.end)).to_numpy()


def left_to_gain(claim: Claim) -> float:
    """What success at every evaluation at which a run of either had one would add to the mean of base.

    Where the claim is that base is better, what could be lost.
    """
    base, variant = (rows_of(claim, which) for which in (claim.base, claim.variant))
    best = pd.concat([base, variant]).groupby("global_step")[claim.measure].max()
    highest = of_curve(best > 0, bool(claim.end)) if claim.direction > 0 else 0
    return abs(highest - ours(claim, claim.base).mean())


def papers(claim: Claim, last_step: float) -> float:
    """The difference in the paper's curves up to a step; where there are none, in its grid's means; else nan."""
    variants = (claim.bound or claim.base, claim.variant)
    curves = [published_curve(claim.env_id, variant, last_step) for variant in variants]
    if any(curve is None for curve in curves):
        grid = pd.read_csv(RESULTS / "paper_grid.csv").set_index(["env_id", "variant"])["mean"]
        return grid.get((claim.env_id, claim.variant), np.nan) - grid.get((claim.env_id, claim.base), np.nan)
    base, variant = (of_curve(curve["mean"], bool(claim.end)) for curve in curves)
    return variant - base


def compare(base: np.ndarray | float, variant: np.ndarray):
    """Welch's test of the difference of means; where base is a number, which is known, Student's."""
    if np.ndim(base) == 0:
        return stats.ttest_1samp(variant - base, 0)
    return stats.ttest_ind(variant, base, equal_var=False)


def interval(base: np.ndarray | float, variant: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Interval of the difference of means."""
    return tuple(compare(base, variant).confidence_interval(level))


def seeds_needed(base: np.ndarray | float, variant: np.ndarray, difference: float) -> str:
    """Seeds of each variant with which Welch's interval excludes zero four times in five; base may be a number."""
    one, other = (np.var(values, ddof=1) if np.ndim(values) else 0.0 for values in (base, variant))
    n = np.arange(2, 200)
    freedom = (n - 1) * (one + other) ** 2 / (one**2 + other**2)
    power = stats.nct.sf(stats.t.ppf(0.975, freedom), freedom, abs(difference) * np.sqrt(n / (one + other)))
    enough = n[power >= 0.8]
    return str(enough[0]) if len(enough) else "–" if np.isnan(difference) else f"> {n[-1]}"


def verdict(low: float, high: float, size: float, direction: int) -> str:
    """By the rule of docs/results.md; size is the paper's difference, or what stands in its place."""
    if direction == 0:
        holds, fails = -NONE <= low <= high <= NONE, low > NONE or high < -NONE
    else:
        worst, best = sorted((direction * low, direction * high))
        holds, fails = worst > 0, best < max(0, direction * size)
    return "**reproduced**" if holds else "**not reproduced**" if fails else "undecided"


def judge(claim: Claim) -> dict[str, str]:
    """A row of the table."""
    row, digits = {"claim": claim.text, "environment": claim.env_id}, claim.digits
    base, variant = ours(claim, claim.base), ours(claim, claim.variant)
    rows = [rows_of(claim, which) for which in (claim.base, claim.variant) if which != GREEDY]
    last = rows[0].global_step.max()
    if set(rows[0].global_step) != set(rows[-1].global_step):
        raise ValueError(f"{claim.text}, {claim.env_id}: the two variants are evaluated at different steps")
    too_few, too_short = len(variant) < 2 or np.shape(base) in ((0,), (1,)), last < claim.end
    published = papers(claim, np.inf if too_few or too_short else last)
    row["paper"] = "–" if np.isnan(published) else f"{'≥ ' * bool(claim.bound)}{published:+.{digits}f}"
    if too_few or too_short:
        rest = dict.fromkeys(("ours", "95 % interval", "seeds", "needed", "verdict", "commit"), "–")
        return row | rest | {"verdict": "not run (too few seeds)" if too_few else "not run (too short)"}
    low, high = interval(base, variant)
    target_actor = by_target_actor(claim.variant, claim.measure)
    said = "–"
    if not np.isnan(published):
        size = claim.direction * min(NONE, left_to_gain(claim)) if target_actor else published
        said = verdict(low, high, size, claim.direction) + ", by the target actor" * target_actor
    needed = seeds_needed(base, variant, published) if said == "undecided" else "–"
    return row | {
        "ours": f"{variant.mean() - np.mean(base):+.{digits}f}",
        "95 % interval": f"{low:+.{digits}f} to {high:+.{digits}f}",
        "seeds": f"{len(variant)}" if claim.base == GREEDY else f"{len(variant)}, {len(base)}",
        "needed": needed,
        "verdict": said,
        "commit": ", ".join(sorted(set(pd.concat(rows).commit))),
    }


def table() -> str:
    """All claims."""
    return markdown([judge(claim) for claim in CLAIMS])


def in_short() -> str:
    """README's table: some of the claims, with the means themselves."""
    table = []
    for claim in CLAIMS:
        if claim.short:
            row, digits = judge(claim), claim.digits
            without, with_term = (np.mean(ours(claim, which)) for which in (claim.base, claim.variant))
            cells = {"mean over all evaluations": claim.short}
            cells |= {"without": f"{without:.{digits}f}", "with": f"{with_term:.{digits}f}"}
            cells |= {"difference": f"{row['ours']} ({row['95 % interval']})", "paper": row["paper"]}
            cells |= {"seeds: with, without": row["seeds"], "verdict": row["verdict"]}
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


def on_cpu(grid: str, env_id: str, plain: str, full: str) -> pd.DataFrame:
    """The evaluations of two variants that were run without a GPU."""
    rows = runs(grid)
    return rows[(rows.env_id == env_id) & rows.variant.isin([plain, full]) & ~rows.machine.str.contains("NVIDIA")]


def algorithm(variant: str) -> str:
    return variant.split("_")[0].upper()


def cost() -> str:
    """What the gradient term adds to a training step, from speed.py's csv, and to whole runs, from the grids'."""
    added = []  # what, by how much, where

    def add(what: str, time: pd.Series, plain: str, full: str, machine: str) -> None:
        if plain in time and full in time:
            added.append((what, 100 * (time[full] / time[plain] - 1), machine.split(",")[0]))

    rows = pd.read_csv(RESULTS / "speed.csv")
    for (machine, _), group in rows.groupby(["machine", "threads"]):
        time = group.groupby("what").ms.median()
        add("a step of DDPG, ContinuousSeek-v0", time, f"{DDPG}.py", f"{REENGAGE}.py", machine)
        for name, script in (("SAC, ContinuousSeek-v0", SAC), ("DQN, BitFlip-v0", DQN)):
            add(f"a step of {name}", time, f"{script}.py --alpha 0", f"{script}.py", machine)
    for grid, env_id, plain, full in RUNS:
        for machine, group in on_cpu(grid, env_id, plain, full).groupby("machine"):
            time = group.groupby(["variant", "seed"]).wall_seconds.max().groupby("variant").median()
            add(f"a run of {algorithm(full)}, {env_id}", time, plain, full, machine)
    table = []
    for what, group in pd.DataFrame(added, columns=["what", "more", "machine"]).groupby("what", sort=False):
        low, high = (f"{value:+.0f} %" for value in (group.more.min(), group.more.max()))
        more = low if low == high else f"{low} to {high}"
        table.append({"": what, "the gradient term adds": more, "machines": ", ".join(group.machine.unique())})
    return markdown(table)


def together() -> str:
    """The reproduced differences that would not be with Holm's correction for all rows that have an interval."""
    judged = [(claim, row) for claim in CLAIMS if (row := judge(claim))["ours"] != "–"]
    tests = [(compare(ours(claim, claim.base), ours(claim, claim.variant)).pvalue, claim, row) for claim, row in judged]
    table, corrected = [], 0.0
    for rank, (p, claim, row) in enumerate(sorted(tests, key=lambda test: test[0])):
        corrected = max(corrected, min(1, (len(tests) - rank) * p))
        if claim.direction and row["verdict"].startswith("**reproduced**") and corrected >= 0.05:
            row = {"claim": claim.text, "environment": claim.env_id, "p": f"{p:.3f}"}
            table.append(row | {"p, all rows together": f"{corrected:.2f}"})
    return markdown(table)


def second_looks() -> str:
    """The rows that three seeds had not decided: what these said, and all seeds with an interval for two looks."""
    table = []
    for claim in CLAIMS:
        if claim.looks == 2:
            row = {"claim": claim.text, "environment": claim.env_id}
            for name, seeds, level in (("three seeds, 95 %", 3, 0.95), ("all seeds, 97.1 %", np.inf, 0.971)):
                base, variant = (ours(claim, which, seeds) for which in (claim.base, claim.variant))
                low, high = (f"{value:+.{claim.digits + 1}f}" for value in interval(base, variant, level))
                row[name] = f"{low} to {high}"
            table.append(row)
    return markdown(table)


def in_time() -> str:
    """Steps and seconds until a run reaches its threshold, medians over the seeds of one machine."""
    table = []
    settings = {DDPG: "each with its best settings", AT_ONE_SETTING[10][0]: "both with ReenGAGE's settings"}
    for grid, env_id, plain, full in [*RUNS, *(("both_actors", SEEK10, base, REENGAGE) for base in settings)]:
        measure = RETURN if grid == "multi" else ACTOR if grid == "both_actors" else "success_rate"
        rows = on_cpu(grid, env_id, plain, full)
        reached = rows[rows[measure] >= MEASURES[measure].threshold].groupby(["variant", "seed"]).first()
        for machine, seeds in rows.groupby("machine"):
            seeds = seeds.groupby("variant").seed.unique()
            if seeds.map(len).reindex([plain, full], fill_value=0).min() < 3:
                continue
            of_all = reached.reindex([(each, seed) for each in seeds.index for seed in seeds[each]])
            median = of_all[["global_step", "wall_seconds"]].fillna(np.inf).groupby("variant").median()
            name = f"{algorithm(full)}, {env_id}"
            name += f", by the actor, {settings[plain]}" if measure == ACTOR else ""
            row = {"": name, "seeds: with, without": f"{len(seeds[full])}, {len(seeds[plain])}"}
            for unit, column in (("steps", "global_step"), ("seconds", "wall_seconds")):
                for how, variant in (("without", plain), ("with", full)):
                    value = median[column][variant]
                    row[f"{unit} {how}"] = f"{value:,.0f}" if np.isfinite(value) else "–"
            table.append(row | {"machine": machine.split(",")[0]})
    return markdown(table)
