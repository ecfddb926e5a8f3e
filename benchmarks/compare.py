"""Draws the curves of your runs beside ours and the paper's, in compare.png.

    python benchmarks/compare.py ContinuousSeek10-v0 runs/NAME ... another/evaluations.csv

A run is a folder of a script, or any csv with a column global_step and one of success_rate (episodic_return on
DriveSeek and NoisySeek). ContinuousSeek's curves are DDPG's, with `--grid sac` SAC's. Ours of the DDPG scripts show the
target actor; `--grid both_actors` has the actor as well.
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
    parser.add_argument("--grid", choices=plot.MEASURED)
    args = parser.parse_args()
    ours = {grid: plot.drawn(grid) for grid in ([args.grid] if args.grid else plot.MEASURED)}
    grid = next((grid for grid, rows in ours.items() if args.env_id in set(rows.env_id)), None)
    if grid is None:
        parser.error(f"no runs of ours are on {args.env_id}")
    files = [path / "evaluations.csv" if path.is_dir() else path for path in args.runs]
    measured = plot.MEASURED[grid]
    for path in files:
        if not path.is_file() or not {"global_step", measured[0]} <= set(pd.read_csv(path)):
            parser.error(f"{path} is no csv with columns global_step and {measured[0]}")
    rows = ours[grid][ours[grid].env_id == args.env_id]
    figure, axes = plt.subplots(
        1, len(measured), figsize=(6 * len(measured), 6), squeeze=False, sharey=True, layout="constrained"
    )
    for each, y in zip(axes[0], measured, strict=True):
        plot.draw(each, rows, args.env_id, "global_step", "thousand steps", y)
        for path, style in zip(files, itertools.cycle(("-", "--", "-.", ":")), strict=False):
            run = pd.read_csv(path)
            column = y if y in run else measured[0]
            each.plot(run.global_step / 1_000, run[column], style, color="black", label=path.parent.name)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", fontsize="small")
    figure.savefig("compare.png", dpi=150)
    print("written: compare.png")


if __name__ == "__main__":
    main()
