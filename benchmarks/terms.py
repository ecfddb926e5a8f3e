"""Prints the two terms of the critic's loss, and α where a rule sets it, from runs' TensorBoard files, as csv.

python benchmarks/terms.py runs/NAME ... > benchmarks/results/terms.csv
"""

import sys
from pathlib import Path

import pandas as pd
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def terms(folder: Path) -> pd.DataFrame:
    """A row for each evaluation."""
    log = EventAccumulator(str(folder)).Reload()
    names = [tag for tag in log.Tags()["scalars"] if tag.split("/")[-1] in ("value_loss", "gradient_loss", "alpha")]
    columns = {tag.split("/")[-1]: {event.step: event.value for event in log.Scalars(tag)} for tag in names}
    return pd.DataFrame(columns).rename_axis("global_step").reset_index().assign(run=folder.name)


if __name__ == "__main__":
    pd.concat([terms(Path(name)) for name in sys.argv[1:]]).to_csv(sys.stdout, index=False, float_format="%.4g")
