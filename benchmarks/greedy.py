"""Measures NoisySeek's greedy agent, which walks to the nearest goal (paper, Figure 4).

    python benchmarks/greedy.py --episodes 5000

plays the episodes with the seeds 0, 1, 2, … and writes benchmarks/results/noisyseek_greedy.csv.
"""

import argparse
import sys
from datetime import date
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import gymnasium as gym  # noqa: E402
import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
from machine import machine  # noqa: E402

from envs import greedy_action  # noqa: E402


def returns(episodes: int) -> np.ndarray:
    """The episodes' returns, (episodes,): numbers of steps on a goal."""
    batch = gym.make_vec("NoisySeek-v0", num_envs=episodes)
    observation, _ = batch.reset(seed=0)
    score, done = np.zeros(episodes), False
    while not done:
        observation, reward, _, truncated, _ = batch.step(greedy_action(observation))
        score, done = score + reward, truncated.all()
    return score


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=5000)
    score = returns(parser.parse_args().episodes)
    row = dict(
        episodic_return=score.mean(),
        standard_error=score.std(ddof=1) / len(score) ** 0.5,
        episodes=len(score),
        first_seed=0,
        date=date.today(),
        machine=machine(),
    )
    table = pd.DataFrame([row]).round(3)
    table.to_csv(ROOT / "benchmarks" / "results" / "noisyseek_greedy.csv", index=False)
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
