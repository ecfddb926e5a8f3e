"""Draws the last moment of an evaluation episode of trained agents, and of NoisySeek's greedy agent on the same goals.

    python benchmarks/stills.py runs/DRIVESEEK_RUN runs/NOISYSEEK_RUN --episode 0

writes docs/images/multi_episodes.png; the runs are ddpg_multi_reengage.py's.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import gymnasium as gym  # noqa: E402
import imageio.v3 as imageio  # noqa: E402
import numpy as np  # noqa: E402

import ddpg_multi_reengage as multi  # noqa: E402
from envs import greedy_action  # noqa: E402


def trained_agent(folder: str) -> tuple[str, Callable]:
    """The environment's id, and a function from an observation to the action of a run's policy."""
    checkpoint = multi.load_checkpoint(folder)
    args = multi.Args(**checkpoint["args"])
    policy = multi.Policy(multi.make_env(args), args)
    multi.restore(checkpoint, dict(actor=policy.actor, critic=policy.critic), args)

    def agent(observation: dict[str, np.ndarray]) -> np.ndarray:
        return policy.to_environment(policy({name: part[None] for name, part in observation.items()}))[0]

    return args.env_id, agent


def last_frame(env_id: str, agent: Callable, episode: int) -> np.ndarray:
    """The picture after the last step of an episode, whose goals and noise depend on its number alone."""
    env = gym.make(env_id, render_mode="rgb_array")
    seed = multi.episode_seeds(1, multi.EVALUATION, [episode])[0]
    observation, done = env.reset(seed=seed)[0], False
    while not done:
        observation, _, terminated, truncated, _ = env.step(agent(observation))
        done = terminated or truncated
    return env.render()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("driveseek")
    parser.add_argument("noisyseek")
    parser.add_argument("--episode", type=int, default=0)
    args = parser.parse_args()
    agents = [trained_agent(args.driveseek), trained_agent(args.noisyseek), ("NoisySeek-v0", greedy_action)]
    frames = [last_frame(env_id, agent, args.episode) for env_id, agent in agents]
    imageio.imwrite(ROOT / "docs" / "images" / "multi_episodes.png", np.concatenate(frames, axis=1))


if __name__ == "__main__":
    main()
