"""Draws the last moment of an evaluation episode of trained agents, and of NoisySeek's greedy agent on the same goals.

    python benchmarks/stills.py runs/DRIVESEEK_RUN runs/NOISYSEEK_RUN --episode 0

writes docs/images/multi_episodes.png; the runs are ddpg_multi_reengage.py's.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
from gymnasium.vector import SyncVectorEnv
from plot import IMAGES

import ddpg_multi_reengage as multi
from envs import greedy_action


def trained_agent(folder: str) -> tuple[multi.Args, Callable]:
    """A run's settings, and its policy."""
    path = Path(folder) / "policy.pt"
    args = multi.Args(**multi.load(path, {})["args"])
    policy = multi.Policy(multi.make_env(args), args)
    multi.load(path, dict(policy=policy))
    return args, policy


def last_frame(args: multi.Args, agent: Callable, episode: int) -> np.ndarray:
    """The picture after the last step of an episode, whose goals and noise depend on its number alone."""
    env = multi.make_env(args, render_mode="rgb_array")
    multi.play(agent, env, SyncVectorEnv([lambda: env]), (1, multi.EVALUATION, episode))
    return env.render()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("driveseek")
    parser.add_argument("noisyseek")
    parser.add_argument("--episode", type=int, default=0)
    args = parser.parse_args()
    agents = [
        trained_agent(args.driveseek),
        trained_agent(args.noisyseek),
        (multi.Args(env_id="NoisySeek-v0"), greedy_action),
    ]
    frames = [last_frame(*agent, args.episode) for agent in agents]
    imageio.imwrite(IMAGES / "multi_episodes.png", np.concatenate(frames, axis=1))


if __name__ == "__main__":
    main()
