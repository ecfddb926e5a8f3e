"""The pages say what benchmarks/results says: their tables are what the benchmarks print from the csv files."""

import re

import numpy as np
import plot
import plot_alpha
import pytest
from claims import page
from conftest import ROOT
from data import runs

NUMBER = re.compile(r"[-+−]?\d+(?:[.,]\d+)*")


def words_and_numbers(text: str) -> tuple[list[str], np.ndarray]:
    return NUMBER.split(text), np.array([float(n.replace(",", "").replace("−", "-")) for n in NUMBER.findall(text)])


def agree(line: str, other: str) -> bool:
    """Whether two lines are the same but for the last digit of their numbers, which a processor may round otherwise."""
    (words, numbers), (other_words, other_numbers) = words_and_numbers(line), words_and_numbers(other)
    return words == other_words and np.allclose(numbers, other_numbers, rtol=0.01, atol=0.02)


def missing(lines: list[str], name: str) -> list[str]:
    """The lines that a page does not have."""
    written = (ROOT / name).read_text().splitlines()
    return [line for line in lines if not any(agree(line, other) for other in written)]


def test_the_claims_are_those_of_the_csv_files():
    assert missing(page().splitlines(), "docs/results.md") == []


@pytest.mark.parametrize(
    ("grid", "name"),
    [
        ("continuousseek", "docs/ddpg_her_reengage.md"),
        ("handreach", "docs/ddpg_her_reengage.md"),
        ("sac", "docs/sac_her_reengage.md"),
        ("bitflip", "docs/dqn_her_reengage.md"),
        ("multi", "docs/ddpg_multi_reengage.md"),
    ],
)
def test_the_tables_of_curves_are_those_of_the_csv_files(grid, name):
    table = plot.table(runs(grid), plot.measure(grid))
    assert missing(table.splitlines(), name) == []


def test_the_tables_of_alpha_are_those_of_the_csv_files():
    lines = [*plot_alpha.table().splitlines(), *plot_alpha.rule_table().splitlines()]
    assert missing(lines, "docs/choosing_alpha.md") == []
