"""Draws the curves of your runs beside ours and the paper's, in compare.png.

    python benchmarks/compare.py ContinuousSeek10-v0 runs/NAME ... another/evaluations.csv

A run is a folder of a script, or any csv with a column global_step and one of success_rate (episodic_return on
DriveSeek and NoisySeek). ContinuousSeek's curves are DDPG's, with `--grid sac` SAC's. Ours of the DDPG scripts show the
target actor. `--grid both_actors` has a panel for it and one for the actor, where a run's column success_rate_actor is
drawn.
"""

import argparse
import itertools
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import plot


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("env_id")
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--grid", choices=plot.COLUMNS)
    args = parser.parse_args()
    ours = {grid: plot.drawn(grid) for grid in ([args.grid] if args.grid else plot.COLUMNS)}
    grid = next((grid for grid, rows in ours.items() if args.env_id in set(rows.env_id)), None)
    if grid is None:
        parser.error(f"no runs of ours are on {args.env_id}")
    columns, runs = plot.COLUMNS[grid], []
    for path in args.runs:
        file = path / "evaluations.csv" if path.is_dir() else path
        runs.append((str(path), pd.read_csv(file) if file.is_file() else pd.DataFrame()))
        if "global_step" not in runs[-1][1] or runs[-1][1].columns.intersection(columns).empty:
            parser.error(f"{file} is no csv with columns global_step and {' or '.join(columns)}")
    rows = ours[grid][ours[grid].env_id == args.env_id]
    size = (6 * len(columns), 6)
    figure, axes = plt.subplots(1, len(columns), figsize=size, squeeze=False, sharey=True, layout="constrained")
    for each, y in zip(axes[0], columns, strict=True):
        plot.draw(each, rows, args.env_id, "global_step", "thousand steps", y)
        for (name, run), style in zip(runs, itertools.cycle(("-", "--", "-.", ":")), strict=False):
            if y in run:
                each.plot(run.global_step / 1_000, run[y], style, color="black", label=name)
    legend = {line.get_label(): line for each in axes[0] for line in each.get_lines()}
    figure.legend(legend.values(), legend.keys(), loc="outside lower center", fontsize="small")
    figure.savefig("compare.png", dpi=150)
    print("written: compare.png")


if __name__ == "__main__":
    main()
