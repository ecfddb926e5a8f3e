"""Tables of README and docs that are not of the grids, as Markdown; pages.py writes them.

Each is a csv of benchmarks/results in the form of its page.
"""

import numpy as np
import pandas as pd
from data import RESULTS, markdown

from theory_check import threshold

# row → script, its peer and its matrix products in speed.csv
ON_CPU = {
    "DDPG+HER": ("ddpg_her.py", "Stable-Baselines3 DDPG", "matrix products, DDPG"),
    "ReenGAGE": ("ddpg_her_reengage.py", "Stable-Baselines3 DDPG, Eq. 9", "matrix products, ReenGAGE"),
    "SAC+HER": ("sac_her_reengage.py --alpha 0", "Stable-Baselines3 SAC", "matrix products, SAC"),
    "ReenGAGE on SAC": ("sac_her_reengage.py", "Stable-Baselines3 SAC, Eq. 9", "matrix products, SAC ReenGAGE"),
    "DQN+HER": ("dqn_her_reengage.py --alpha 0", "Stable-Baselines3 DQN", "matrix products, DQN"),
    "ReenGAGE on DQN": ("dqn_her_reengage.py", "Stable-Baselines3 DQN, Eq. 29", "matrix products, DQN ReenGAGE"),
}
ON_GPU = {
    "ddpg_her": "DDPG+HER",
    "ddpg_her_reengage": "ReenGAGE",
    "sac_her_reengage": "ReenGAGE on SAC",
    "dqn_her_reengage": "ReenGAGE on DQN",
    "ddpg_multi_reengage": "Multi-ReenGAGE",
}


def newest(name: str) -> pd.DataFrame:
    """The rows of a csv that are of the machine that was measured last."""
    rows = pd.read_csv(RESULTS / f"{name}.csv")
    return rows[rows.machine == rows.machine.iloc[-1]]


def speed(*pairs: tuple[str, str], digits: int) -> str:
    """Milliseconds per training step of baselines and methods, of Stable-Baselines3 and of the products alone."""
    time = newest("speed").groupby(["what", "threads"]).ms.median()
    table = []
    for pair in pairs:
        for threads in (1, 2):
            for name in pair:
                script, peer, products = (time[what, threads] for what in ON_CPU[name])
                row = {"": name, "threads": f"{threads}", "here": f"{script:.1f}", "Stable-Baselines3": f"{peer:.1f}"}
                table.append(row | {"products alone": f"{products:.{digits}f}"})
    return markdown(table)


def gpu_speed() -> str:
    """Milliseconds per update and per training step on a GPU."""
    columns = {
        "update, kernel by kernel": "update_ms_kernels",
        "update, one graph": "update_ms_graph",
        "training step": "step_ms_graph",
    }
    return markdown(
        [
            {"": ON_GPU[row["script"]]} | {name: f"{row[key]:.2g}" for name, key in columns.items()}
            for row in newest("gpu_speed").to_dict("records")
        ]
    )


def profile() -> str:
    """Milliseconds of each part of a training step, the longest first, then the whole."""
    time = pd.read_csv(RESULTS / "profile_step.csv").set_index("part").ms
    last = ["the rest", "a training step"]
    order = [*time.drop(last).sort_values(ascending=False).index, *last]
    return markdown([{"part": part, "ms": f"{time[part]:.2f}"} for part in order])


def multi_speed() -> str:
    """Milliseconds per update of Multi-ReenGAGE, and of its loss written down plainly."""
    time = newest("multi_speed").set_index(["size", "threads", "alpha", "form"]).ms_median
    columns = {
        "`--alpha 0`": (0.0, "ours"),
        "Multi-ReenGAGE": (0.1, "ours"),
        "the dense form": (0.1, "dense"),
        "dense, by the gates alone": (0.1, "dense, gradient by the gates"),
    }
    sizes = {"full": ("400-400-20, 400, 256", 0), "small": ("64-64-20, 64, 128", 1)}
    table = []
    for size, (networks, digits) in sizes.items():
        for threads in (1, 2):
            row = {"encoder, heads, batch": networks, "threads": str(threads)}
            table.append(row | {name: f"{time[size, threads, *key]:.{digits}f}" for name, key in columns.items()})
    return markdown(table)


def env_speed() -> str:
    """Environment steps per second."""
    rows = pd.read_csv(RESULTS / "env_speed.csv")
    rate = rows.set_index(["id", "way"]).steps_per_second
    ways = {"one": "single", "`SyncVectorEnv`": "sync", "`AsyncVectorEnv`": "async", "`gym.make_vec`": "batch"}
    table = []
    for name, count in rows.groupby("id", sort=False).num_envs.max().items():
        row = {"id": f"`{name}`", "environments": str(count)}
        table.append(row | {way: f"{rate[name, key]:,}" if (name, key) in rate else "–" for way, key in ways.items()})
    return markdown(table)


def soft_target() -> str:
    """Exact differences of BitFlip's values with the soft target."""
    rows = pd.read_csv(RESULTS / "soft_target.csv", dtype=str)
    table = []
    for row in rows.to_dict("records"):
        cells = {"bits d": row["d"], "τ": f"{float(row['temperature']):g}"}
        for wrong in (1, 2, 3, 5, 10):
            name = f"{wrong} wrong bit" if wrong == 1 else str(wrong)
            cells[name] = np.format_float_positional(float(row[f"gap at {wrong}"]), trim="-")
        table.append(cells | {"value at d/2": row["value at d/2"].replace("-", "−")})
    return markdown(table)


def theory() -> str:
    """Transitions that theory_check.py needed by dimension, and the exponent of d with its interval."""
    rows = pd.read_csv(RESULTS / "theory_check.csv")
    needed = rows.groupby(["measurement", "family", "method", "dim"]).transitions.apply(threshold)
    table = []
    for row in pd.read_csv(RESULTS / "theory_check_exponents.csv").itertuples():
        measured = "identified" if row.measurement == "identifiability" else "learnt"
        cells = {"": measured, "family": row.family, "method": row.method}
        for dim in sorted(rows.dim.unique()):
            count = needed.get((row.measurement, row.family, row.method, dim))
            cells[f"d = {dim}"] = "–" if count is None else f"{count:,}"
        interval = f"{row.exponent:.2f} [{row.low:.2f}, {row.high:.2f}]"
        table.append(cells | {"exponent (95 %)": interval, "paper": str(row.expected)})
    return markdown(table)
