"""The pages say what benchmarks/results says: their tables are what pages.py writes from the csv files."""

import re
import subprocess
import sys

import claims
import data
import numpy as np
import pages
import plot
import plot_alpha
import pytest
import sweep
from conftest import ROOT

NUMBER = re.compile(r"[-+−]?\d+(?:\.\d+)?")
WITH_TABLES = [page for page in pages.PAGES if page.name == "results.md" or pages.TABLE.search(page.read_text())]


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
    run = {data.variant_of(script, flags) for grid in sweep.GRIDS.values() for _, script, flags in grid}
    papers = {(env_id, variant) for env_id, variants in data.PAPER.items() for variant in variants}
    claimed = {(claim.env_id, variant) for claim in claims.CLAIMS for variant in (claim.base, claim.variant)}
    assert (papers | claimed) - run == {("NoisySeek-v0", data.GREEDY)}  # nobody trains it
    assert set(plot.VARIANTS) <= {variant for _, variant in run}


@pytest.mark.parametrize("panel", plot_alpha.PANELS, ids=lambda panel: panel.title)
def test_an_alpha_has_one_row_for_us_and_the_paper(panel):
    multiples = plot_alpha.compared(panel).index
    assert np.diff(multiples).min() > 0.01


def test_runs_of_your_own_are_drawn_beside_ours(tmp_path):
    run = tmp_path / "mine"
    run.mkdir()
    command = [sys.executable, ROOT / "benchmarks" / "compare.py", "BitFlip20-v0", run]
    refused = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert refused.returncode == 2
    assert refused.stderr.endswith("mine/evaluations.csv is no csv with columns global_step and success_rate\n")
    (run / "evaluations.csv").write_text("global_step,success_rate\n0,0\n1000,0.5\n")
    subprocess.run(command, cwd=tmp_path, check=True)
    assert (tmp_path / "compare.png").stat().st_size > 10_000
