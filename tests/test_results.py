"""The pages say what benchmarks/results says: their tables are what pages.py writes from the csv files."""

import re
import subprocess
import sys

import alpha_rule
import claims
import data
import matplotlib.figure
import numpy as np
import pages
import pandas as pd
import plot
import plot_alpha
import pytest
import same_training
import soft_target
import sweep
import torch
from conftest import ROOT, assert_same, learned
from scipy import stats

import ddpg_her_reengage

NUMBER = re.compile(r"[-+−]?\d+(?:\.\d+)?")
WITH_TABLES = [page for page in pages.PAGES if pages.TABLE.search(page.read_text())]


def numbers(text: str) -> tuple[np.ndarray, np.ndarray]:
    """The numbers of a text, and one unit of the last digit of each: processors may round it otherwise."""
    found = [number.replace("−", "-") for number in NUMBER.findall(text)]
    return np.array(found, float), np.array([10.0 ** -len(number.partition(".")[2]) for number in found])


@pytest.mark.parametrize("page", WITH_TABLES, ids=lambda page: page.name)
def test_a_page_says_what_the_csv_files_say(page):
    text, anew = page.read_text(), pages.written(page)
    assert NUMBER.sub("#", text) == NUMBER.sub("#", anew), "python benchmarks/pages.py writes it anew"
    (here, _), (there, unit) = numbers(text), numbers(anew)
    different = np.abs(here - there) > np.where(unit < 1, 1.01 * unit, 0)  # whole numbers are counts
    assert not different.any(), (here[different], there[different])


def test_every_table_is_on_one_page():
    names = [found[2] for page in pages.PAGES for found in pages.TABLE.finditer(page.read_text())]
    assert sorted(names) == sorted(pages.TABLES)


def test_every_variant_that_is_compared_is_run():
    run = {(grid, *data.variant_of(script, flags)) for grid, runs in sweep.GRIDS.items() for _, script, flags in runs}
    claimed = {(claim.grid, claim.env_id, claim.variant) for claim in claims.CLAIMS}
    claimed |= {(claim.base_grid or claim.grid, claim.env_id, claim.base) for claim in claims.CLAIMS}
    assert claimed - run == {("multi", "NoisySeek-v0", data.GREEDY)}  # nobody trains it
    papers = {(env_id, variant) for env_id, variants in data.PAPER.items() for variant in variants}
    assert papers - {(env_id, variant) for _, env_id, variant in run} == {("NoisySeek-v0", data.GREEDY)}
    assert set(plot.VARIANTS) <= {variant for _, _, variant in run}


def test_a_run_that_is_not_whole_is_refused(tmp_path, monkeypatch):
    whole = pd.read_csv(data.RESULTS / "sac.csv")
    monkeypatch.setattr(data, "RESULTS", tmp_path)
    read = data.runs.__wrapped__  # not kept
    whole.to_csv(tmp_path / "whole.csv", index=False)
    assert len(read("whole")) == len(whole)
    for name, rows in (("cut", whole.drop(3)), ("twice", pd.concat([whole, whole])), ("back", whole.iloc[::-1])):
        rows.to_csv(tmp_path / f"{name}.csv", index=False)
        with pytest.raises(ValueError, match=f"{name}.csv: these lack evaluations, or have some twice"):
            read(name)


@pytest.mark.parametrize("panel", plot_alpha.PANELS, ids=lambda panel: panel.title)
def test_an_alpha_has_one_row_for_us_and_the_paper(panel):
    multiples = plot_alpha.compared(panel).index
    assert np.diff(multiples).min() > 0.01


@pytest.mark.parametrize(
    ("low", "high", "size", "direction", "said"),
    [
        (0.1, 0.3, 0.2, 1, "**reproduced**"),
        (0.1, 0.15, 0.2, 1, "**reproduced**"),
        (-0.1, 0.1, 0.2, 1, "**not reproduced**"),
        (-0.3, -0.1, 0.2, 1, "**not reproduced**"),
        (-0.1, 0.3, 0.2, 1, "undecided"),
        (-0.3, -0.1, -0.2, -1, "**reproduced**"),
        (0.1, 0.3, -0.2, -1, "**not reproduced**"),
        (-0.05, 0.09, 0.0, 0, "**reproduced**"),
        (0.11, 0.2, 0.0, 0, "**not reproduced**"),
        (-0.05, 0.2, 0.0, 0, "undecided"),
        (-0.03, 0.01, 0.03, 1, "**not reproduced**"),
        (-0.03, 0.04, 0.03, 1, "undecided"),
    ],
)
def test_a_verdict_follows_the_rule(low, high, size, direction, said):
    assert claims.verdict(low, high, size, direction) == said


def test_the_interval_is_welchs_and_a_known_score_has_no_spread():
    base, variant = np.array([0.1, 0.2, 0.3]), np.array([0.5, 0.9])
    freedom = (0.01 / 3 + 0.08 / 2) ** 2 / ((0.01 / 3) ** 2 / 2 + (0.08 / 2) ** 2)
    half = stats.t.ppf(0.975, freedom) * np.sqrt(0.01 / 3 + 0.08 / 2)
    assert claims.interval(base, variant) == pytest.approx((0.5 - half, 0.5 + half))
    half = stats.t.ppf(0.975, 2) * 0.1 / np.sqrt(3)
    assert claims.interval(0.05, base) == pytest.approx((0.15 - half, 0.15 + half))


def test_what_is_left_to_gain_counts_evaluations_with_a_success():
    claim = next(claim for claim in claims.CLAIMS if claim.env_id == "ContinuousSeek10-v0" and claim.base_grid)
    base, other = claims.rows_of(claim, claim.base), claims.rows_of(claim, claim.variant)
    assert set(base.commit).isdisjoint(other.commit)  # of two grids
    curve = base.groupby("global_step").success_rate.mean()
    assert (curve[curve.index < 4_000] == 0).all()  # nothing could be gained there
    assert claims.left_to_gain(claim) == pytest.approx((1 - curve[curve.index >= 4_000]).sum() / len(curve))
    assert claims.left_to_gain(claim._replace(direction=-1)) == pytest.approx(curve.mean())  # what could be lost


def test_variants_that_are_evaluated_at_different_steps_are_not_compared(monkeypatch):
    rows_of = claims.rows_of

    def shorter(claim, variant):
        rows = rows_of(claim, variant)
        return rows[rows.global_step < rows.global_step.max()] if variant == claim.variant else rows

    monkeypatch.setattr(claims, "rows_of", shorter)
    with pytest.raises(ValueError, match="are evaluated at different steps"):
        claims.judge(claims.CLAIMS[0])


def test_as_many_seeds_are_needed_as_find_the_difference_four_times_in_five():
    rng = np.random.default_rng(0)
    base = variant = np.array([-1.0, 0.0, 1.0])  # a standard deviation of 1
    needed = int(claims.seeds_needed(base, variant, 1.5))

    def found(seeds):
        one, other = rng.normal(0, 1, (seeds, 20_000)), rng.normal(1.5, 1, (seeds, 20_000))
        return np.mean(stats.ttest_ind(one, other).pvalue < 0.05)

    assert found(needed - 1) < 0.81
    assert found(needed) > 0.79


@pytest.mark.parametrize("grid", plot.COLUMNS)
def test_the_commits_that_made_a_grid_train_the_same(grid):
    known = pd.read_csv(data.RESULTS / "same_training.csv", dtype=dict(commit=str))
    assert known.groupby(["script", "flags"])[same_training.SAME].nunique().le(1).all(axis=None)
    family = r"--env-id ([a-zA-Z]+)"  # of environments that differ by their dimension
    commits = {key: set(rows) for key, rows in known.groupby(["script", known["flags"].str.extract(family)[0]]).commit}
    rows = data.runs(grid)
    for key, made_by in rows.groupby(["script", rows["flags"].str.extract(family)[0]]).commit:
        assert set(made_by) <= commits[key], key


def test_soft_target_s_csv_is_what_it_computes(tmp_path, monkeypatch):
    monkeypatch.setattr(soft_target, "RESULTS", tmp_path)
    soft_target.main()
    anew, committed = (pd.read_csv(folder / "soft_target.csv") for folder in (tmp_path, data.RESULTS))
    pd.testing.assert_frame_equal(anew, committed, rtol=0.1)  # of two digits


def test_a_panel_has_the_mean_of_the_seeds_its_deviation_and_the_papers():
    rows = plot.drawn("sac")
    rows = rows[(rows.env_id == "ContinuousSeek10-v0") & (rows.variant == f"{data.SAC} --alpha 0.02")]
    axes = matplotlib.figure.Figure().add_subplot()
    plot.draw(axes, rows, "ContinuousSeek10-v0", "global_step", "", "success_rate")
    ours, papers = axes.get_lines()
    curves = rows.pivot(index="global_step", columns="seed", values="success_rate")
    np.testing.assert_allclose(ours.get_xdata() * 1_000, curves.index)
    np.testing.assert_allclose(ours.get_ydata(), curves.mean(axis=1))
    paper = data.paper_curve("continuousseek_sac_d10_best", "0.2/d", curves.index[-1])
    np.testing.assert_allclose(papers.get_xdata() * 1_000, paper.index)
    np.testing.assert_allclose(papers.get_ydata(), paper["mean"])
    deviations = (curves.std(axis=1, ddof=0), paper["std"])
    for band, line, deviation in zip(axes.collections, (ours, papers), deviations, strict=True):
        heights = band.get_paths()[0].get_extents().intervaly
        around = line.get_ydata() - deviation, line.get_ydata() + deviation
        np.testing.assert_allclose(heights, [min(around[0]), max(around[1])])


@pytest.mark.parametrize("grid", plot.COLUMNS)
def test_a_grid_has_a_figure(grid, tmp_path, monkeypatch):
    monkeypatch.setattr(plot, "IMAGES", tmp_path)
    plot.figure(grid)
    assert (tmp_path / f"{grid}.png").stat().st_size > 20_000


def test_alpha_has_a_figure(tmp_path, monkeypatch):
    monkeypatch.setattr(plot_alpha, "IMAGES", tmp_path)
    plot_alpha.figure()
    assert (tmp_path / "alpha.png").stat().st_size > 20_000


def test_the_rules_alpha_is_a_share_of_the_running_means():
    args, used = ddpg_her_reengage.Args(alpha=0.5), []

    def loss(value, gradient, args):
        used.append(args.alpha)
        value, gradient = torch.tensor([value, gradient], dtype=torch.float64)
        return value + args.alpha * gradient, dict(value_loss=value)

    rule = alpha_rule.balanced(loss, share=0.3)
    for value, gradient in ((1, 2), (1, 2), (3, 1), (100, 1), (0, 0)):
        rule(value, gradient, args)
    old, older = alpha_rule.DECAY, alpha_rule.DECAY**2
    mean = 0.3 * (3 + old + older) / (1 + 2 * old + 2 * older)
    assert used == pytest.approx([0.5, 0.15, 0.15, mean, 0.5])  # at most what it began with


def test_a_rule_changes_what_the_script_learns(run, tmp_path):
    flags = "--env-id ContinuousSeek5-v0 --batch-size 16 --hidden-size 16 --total-timesteps 300 --eval-frequency 100"
    flags += " --learning-starts 0"
    rule = ROOT / "benchmarks" / "alpha_rule.py"
    assert run(rule, "--script ddpg_her_reengage --share 1e-4 --run-name rule", flags).status == 0
    assert run("ddpg_her_reengage", flags, "--run-name plain").status == 0
    with pytest.raises(AssertionError):
        assert_same(*(learned(tmp_path / "runs" / name) for name in ("rule", "plain")))


def test_runs_of_your_own_are_drawn_beside_ours(tmp_path):
    run = tmp_path / "mine"
    run.mkdir()
    command = [sys.executable, ROOT / "benchmarks" / "compare.py", "ContinuousSeek5-v0", run, "--grid", "both_actors"]
    refused = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert refused.returncode == 2
    columns = "global_step and success_rate or success_rate_actor"
    assert refused.stderr.endswith(f"mine/evaluations.csv is no csv with columns {columns}\n")
    pictures = []
    for success_rate in (0.1, 0.9):
        (run / "evaluations.csv").write_text(f"global_step,success_rate_actor\n0,0\n10000,{success_rate}\n")
        subprocess.run(command, cwd=tmp_path, check=True)
        pictures.append((tmp_path / "compare.png").read_bytes())
    assert pictures[0] != pictures[1]
