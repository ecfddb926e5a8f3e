"""Milliseconds per training step of the scripts, beside the same loss on Stable-Baselines3 and the matrix products.

A training step is everything that one environment step of a run costs: the action, the environment, storing,
sampling, relabelling and one update, on ContinuousSeek-v0 (d = 20) with batch 256 and two hidden layers of 256; all
networks see observation and achieved goal. It is the difference of a longer and a shorter run, divided by the
difference of their steps, so that start-up does not count. DQN has the schedule of its experiment: on BitFlip-v0
(d = 40), a step is one of sixteen environments and one update with batch 128 and one hidden layer of 256. The peer has
the same rounds of an episode and as many updates, and the same fused Adam. All candidates take turns in one process,
`--repeats` times, and the csv has every time, a measurement's that is cut short too. `--only dqn` measures one
algorithm and its peer, and leaves the csv's other rows as they are.

The matrix products are those that an update's losses need, and nothing else is done.

    python benchmarks/speed.py
"""

import argparse
import datetime
import itertools
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable

import gymnasium as gym
import pandas as pd
import torch
from data import ROOT, merge
from machine import software
from stable_baselines3 import DDPG, DQN, SAC, HerReplayBuffer
from stable_baselines3.common.env_util import make_vec_env

import ddpg_her
import ddpg_her_reengage
import dqn_her_reengage
import sac_her_reengage

sys.path.append(str(ROOT / "examples"))
from sb3_reengage import DDPGReenGAGE, DQNReenGAGE, SACReenGAGE

os.environ["CUDA_VISIBLE_DEVICES"] = ""  # the scripts would take a GPU, the peer and the products would not
DIM, EPISODE, BATCH, HIDDEN = 20, 10, 256, 256
COLUMNS = ["what", "threads", "repeat", "ms", "date", "machine"]
SHORT, LONG = 1_100, 1_700  # environment steps of the two runs; training starts at 1,000
BITS, ENVS, DQN_BATCH = 40, 16, 128


def run_script(script, steps: int, env_id: str = "ContinuousSeek-v0", batch_size: int = BATCH, **settings) -> None:
    """Trains one of our scripts for `steps` environment steps."""
    settings |= dict(env_id=env_id, total_timesteps=steps, batch_size=batch_size, seed=7)
    settings |= dict(eval_frequency=10**9, eval_episodes=1, checkpoint_frequency=10**9, run_name=str(time.time_ns()))
    script.train(script.Args(**script.PAPER_SETTINGS[env_id] | settings))


def run_sb3(algorithm: type[DDPG] | type[SAC], steps: int) -> None:
    """Trains the peer with the same settings."""
    algorithm(
        "MultiInputPolicy",
        gym.make("ContinuousSeek-v0"),
        replay_buffer_class=HerReplayBuffer,
        replay_buffer_kwargs=dict(n_sampled_goal=4, goal_selection_strategy="future"),
        learning_starts=1_000,
        batch_size=BATCH,
        learning_rate=5e-4,
        gamma=0.95,
        tau=0.005,
        train_freq=(EPISODE, "step"),
        gradient_steps=EPISODE,
        policy_kwargs=dict(net_arch=[HIDDEN, HIDDEN], optimizer_kwargs=dict(fused=True)),
        device="cpu",
        seed=7,
    ).learn(steps)


def run_dqn(steps: int, alpha: float) -> None:
    """Trains our DQN for `steps` updates, each with a step of sixteen environments."""
    run_script(dqn_her_reengage, ENVS * steps, "BitFlip-v0", DQN_BATCH, alpha=alpha)


def run_sb3_dqn(algorithm: type[DQN], steps: int) -> None:
    """Trains the peer with the same settings: rounds of 40 steps of sixteen environments, then 40 updates."""
    algorithm(
        "MultiInputPolicy",
        make_vec_env("BitFlip-v0", ENVS),
        replay_buffer_class=HerReplayBuffer,
        replay_buffer_kwargs=dict(n_sampled_goal=4, goal_selection_strategy="future"),
        learning_starts=ENVS * BITS,  # the first episodes
        batch_size=DQN_BATCH,
        learning_rate=1e-3,
        gamma=0.98,
        tau=0.00128,
        train_freq=(BITS, "step"),
        gradient_steps=BITS,
        target_update_interval=ENVS,  # as often as there are updates
        exploration_initial_eps=0.2,
        exploration_final_eps=0.2,
        policy_kwargs=dict(net_arch=[HIDDEN], optimizer_kwargs=dict(fused=True)),
        device="cpu",
        seed=7,
    ).learn(ENVS * steps)


def training_step(run: Callable[[int], None], short: int = SHORT, long: int = LONG) -> float:
    """Milliseconds per training step, from runs of two lengths."""
    seconds = []
    for steps in (short, short, long):  # the first one warms up
        start = time.perf_counter()
        run(steps)
        seconds.append(time.perf_counter() - start)
    return 1e3 * (seconds[2] - seconds[1]) / (long - short)


# Matrix products of a ReLU network's layers, as (rows, inner, columns). `sizes` are inputs, hidden units and outputs,
# or a part of them: where the gradient by some inputs is asked for, only these count.


def forward(rows: int, *sizes: int) -> list[tuple[int, int, int]]:
    """From the input to the output."""
    return [(rows, fan_in, fan_out) for fan_in, fan_out in itertools.pairwise(sizes)]


def back(rows: int, *sizes: int) -> list[tuple[int, int, int]]:
    """From the output's gradient to the input's."""
    return forward(rows, *reversed(sizes))


def weights(rows: int, *sizes: int) -> list[tuple[int, int, int]]:
    """From all layers' gradients to their weights'."""
    return [(fan_out, rows, fan_in) for fan_in, fan_out in itertools.pairwise(sizes)]


def necessary_products(critics: int, gradient_loss: bool) -> list[tuple[int, int, int]]:
    """Every matrix product that an update's losses need; two critics mean SAC.

    Back from the smaller of two critics goes through one of them for each transition.
    """
    b, d, hidden = BATCH, DIM, (HIDDEN, HIDDEN)
    out = d * critics  # SAC's actor has a mean and a deviation
    actor, critic = (3 * d, *hidden, out), (4 * d, *hidden, 1)
    products = forward(b, *actor) + critics * forward(b, *critic)  # the target's value
    products += critics * (forward(b, *critic) + back(b, *hidden, 1) + weights(b, *critic))  # the critic's value term
    products += forward(b, *actor) + critics * forward(b, *critic)  # the actor's step: forward,
    products += back(b, d, *hidden, 1)  # back through the critic to the action,
    products += back(b, *hidden, out) + weights(b, *actor)  # and through the actor
    if gradient_loss:
        products += back(b, 2 * d, *hidden, 1)  # ∇_g y: through the critic to action and goal,
        products += back(b, d, *hidden, out)  # and through the actor
        products += critics * back(b, d, *hidden, 1)  # ∇_g Q
        products += critics * (forward(b, d, *hidden) + weights(b, d, *hidden, 1))  # the term's gradient in θ
    return products


def necessary_dqn_products(gradient_loss: bool) -> list[tuple[int, int, int]]:
    """The same for DQN's update. Of the network, though not of its target, the one action taken counts."""
    b, h, d = DQN_BATCH, HIDDEN, BITS
    products = forward(b, 3 * d, h, d)  # the target's values
    products += forward(b, 3 * d, h, 1) + back(b, h, 1) + weights(b, 3 * d, h, 1)  # the value term
    if gradient_loss:
        products += back(b, d, h, d)  # ∇_g y, through the softmax
        products += back(b, d, h, 1)  # ∇_g Q
        products += forward(b, d, h) + weights(b, d, h, 1)  # the term's gradient in θ
    return products


def matrix_products(sizes: list[tuple[int, int, int]], repeats: int = 200) -> float:
    """Milliseconds that products of these sizes take when nothing else is done."""
    pairs = [(torch.randn(m, k), torch.randn(k, n)) for m, k, n in sizes]
    outputs = [left @ right for left, right in pairs]
    start = time.perf_counter()
    for _ in range(repeats):
        for (left, right), out in zip(pairs, outputs, strict=True):
            torch.mm(left, right, out=out)
    return 1e3 * (time.perf_counter() - start) / repeats


def candidates() -> dict[str, dict[str, Callable[[], float]]]:
    """Algorithm → name → a function that measures once, in milliseconds per training step."""
    reengage, sac, rounds = ddpg_her_reengage, sac_her_reengage, (4 * BITS, 84 * BITS)
    return {
        "ddpg": {
            "ddpg_her.py": lambda: training_step(lambda steps: run_script(ddpg_her, steps)),
            "ddpg_her_reengage.py": lambda: training_step(lambda steps: run_script(reengage, steps, alpha=0.01)),
            "Stable-Baselines3 DDPG": lambda: training_step(lambda steps: run_sb3(DDPG, steps)),
            "Stable-Baselines3 DDPG, Eq. 9": lambda: training_step(lambda steps: run_sb3(DDPGReenGAGE, steps)),
            "matrix products, DDPG": lambda: matrix_products(necessary_products(1, gradient_loss=False)),
            "matrix products, ReenGAGE": lambda: matrix_products(necessary_products(1, gradient_loss=True)),
        },
        "sac": {
            "sac_her_reengage.py --alpha 0": lambda: training_step(lambda steps: run_script(sac, steps, alpha=0.0)),
            "sac_her_reengage.py": lambda: training_step(lambda steps: run_script(sac, steps, alpha=0.01)),
            "Stable-Baselines3 SAC": lambda: training_step(lambda steps: run_sb3(SAC, steps)),
            "Stable-Baselines3 SAC, Eq. 9": lambda: training_step(lambda steps: run_sb3(SACReenGAGE, steps)),
            "matrix products, SAC": lambda: matrix_products(necessary_products(2, gradient_loss=False)),
            "matrix products, SAC ReenGAGE": lambda: matrix_products(necessary_products(2, gradient_loss=True)),
        },
        "dqn": {
            "dqn_her_reengage.py --alpha 0": lambda: training_step(lambda steps: run_dqn(steps, 0.0), *rounds),
            "dqn_her_reengage.py": lambda: training_step(lambda steps: run_dqn(steps, 0.025), *rounds),
            "Stable-Baselines3 DQN": lambda: training_step(lambda steps: run_sb3_dqn(DQN, steps), *rounds),
            "Stable-Baselines3 DQN, Eq. 29": lambda: training_step(
                lambda steps: run_sb3_dqn(DQNReenGAGE, steps), *rounds
            ),
            "matrix products, DQN": lambda: matrix_products(necessary_dqn_products(gradient_loss=False)),
            "matrix products, DQN ReenGAGE": lambda: matrix_products(necessary_dqn_products(gradient_loss=True)),
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, nargs="+", default=[2, 1])
    parser.add_argument("--repeats", type=int, default=3)
    algorithms = candidates()
    parser.add_argument("--only", choices=algorithms, nargs="+", default=list(algorithms), help="algorithms")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    measures = {name: measure for each in args.only for name, measure in algorithms[each].items()}
    times = []
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # the runs' folders go there
        for repeat in range(args.repeats):
            for threads, name in itertools.product(args.threads, measures):
                torch.set_num_threads(threads)
                times.append([name, threads, repeat, measures[name](), datetime.date.today(), software()])
            rows = pd.DataFrame(times, columns=COLUMNS).round(3)
            merge("speed", rows, ["what", "threads", "machine"])
    print(rows.groupby(["what", "threads"], sort=False).ms.describe()[["50%", "min", "max"]])


if __name__ == "__main__":
    main()
