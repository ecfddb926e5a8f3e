"""Measures NoisySeek's greedy agent, which walks to the nearest goal (paper, Figure 4).

    python benchmarks/greedy.py --episodes 5000

plays the episodes with the seeds 0, 1, 2, … and writes benchmarks/results/noisyseek_greedy.csv.
"""

import argparse
from datetime import date

import gymnasium as gym
import numpy as np
import pandas as pd
from data import RESULTS
from machine import machine

from envs import greedy_action


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
    table.to_csv(RESULTS / "noisyseek_greedy.csv", index=False)
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
