"""Writes what README and docs take from benchmarks/results: tables, and figures in docs/images.

    python benchmarks/pages.py

A table of a page stands under a comment with its name, `<!-- table: NAME -->`, and is replaced whole. Sentences are
not: read those beside a table that has changed.
"""

import re
from functools import partial
from pathlib import Path

import claims
import plot
import plot_alpha
import tables
from data import ROOT
from tqdm import tqdm

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TABLE = re.compile(r"(<!-- table: (.+) -->\n\n)(?:\|.*\n)+")
TABLES = {
    **{f"{grid} {y}": partial(plot.table, grid, y) for grid, columns in plot.COLUMNS.items() for y in columns},
    "in short": claims.in_short,
    "claims": claims.table,
    "holm": claims.together,
    "second looks": claims.second_looks,
    "exponents": claims.theory,
    "cost": claims.cost,
    "time": claims.in_time,
    "alpha": plot_alpha.table,
    "alpha rule": plot_alpha.rule_table,
    "speed": partial(tables.speed, ("DDPG+HER", "ReenGAGE"), ("SAC+HER", "ReenGAGE on SAC"), digits=1),
    "speed of dqn": partial(tables.speed, ("DQN+HER", "ReenGAGE on DQN"), digits=2),
    "speed on a gpu": tables.gpu_speed,
    "profile": tables.profile,
    "multi speed": tables.multi_speed,
    "env speed": tables.env_speed,
    "soft target": tables.soft_target,
    "theory": tables.theory,
}


def written(page: Path) -> str:
    """The text that a page should have."""
    return TABLE.sub(lambda found: f"{found[1]}{TABLES[found[2]]()}\n", page.read_text())


def main() -> None:
    for page in PAGES:
        page.write_text(written(page))
    for grid in tqdm(plot.COLUMNS, unit="figure"):
        plot.figure(grid)
    plot_alpha.figure()


if __name__ == "__main__":
    main()
