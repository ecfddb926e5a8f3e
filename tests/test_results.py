"""The pages say what benchmarks/results says: their tables are what the benchmarks print from the csv files."""

import re

import claims
import numpy as np
import plot
import plot_alpha
import pytest
from conftest import ROOT
from data import runs

NUMBER = re.compile(r"[-+−]?\d+(?:\.\d+)?")


def numbers(text: str) -> tuple[np.ndarray, np.ndarray]:
    """The numbers of a text, and one unit of the last digit of each: processors may round it otherwise."""
    found = [number.replace("−", "-") for number in NUMBER.findall(text)]
    return np.array(found, float), np.array([10.0 ** -len(number.partition(".")[2]) for number in found])


def words(line: str) -> str:
    return NUMBER.sub("#", line)


def assert_contains(page: str, text: str) -> None:
    """A page has a text word by word, and no more rows of its last table; numbers agree up to their last digit."""
    lines, written = text.strip().splitlines(), (ROOT / page).read_text().splitlines()
    begins = [i for i in range(len(written) - 2) if written[i] == lines[0]]
    begin = next(i for i in begins if written[i + 2].split("|")[:3] == lines[2].split("|")[:3])
    found, rest = written[begin : begin + len(lines)], written[begin + len(lines) :]
    assert [words(line) for line in found] == [words(line) for line in lines]
    assert not rest or not rest[0].startswith("|")
    (ours, unit), (theirs, _) = numbers("\n".join(lines)), numbers("\n".join(found))
    different = np.abs(ours - theirs) > np.where(unit < 1, 1.01 * unit, 0)  # whole numbers are counts
    assert not different.any(), (ours[different], theirs[different])


def test_the_claims_are_those_of_the_csv_files():
    assert_contains("docs/results.md", claims.page())


@pytest.mark.parametrize(
    ("grid", "page"),
    [
        ("continuousseek", "docs/ddpg_her_reengage.md"),
        ("both_actors", "docs/ddpg_her_reengage.md"),
        ("handreach", "docs/ddpg_her_reengage.md"),
        ("sac", "docs/sac_her_reengage.md"),
        ("bitflip", "docs/dqn_her_reengage.md"),
        ("multi", "docs/ddpg_multi_reengage.md"),
    ],
)
def test_the_tables_of_curves_are_those_of_the_csv_files(grid, page):
    for measure in plot.measures(grid):
        assert_contains(page, plot.table(runs(grid), measure))


def test_the_tables_of_alpha_are_those_of_the_csv_files():
    assert_contains("docs/choosing_alpha.md", plot_alpha.table())
    assert_contains("docs/choosing_alpha.md", plot_alpha.rule_table())
