"""Every script learns a small task: from the command line, with the goal gradient and without.

Processors differ in the last bits, so a run on another one is like a run with another seed: the thresholds leave room.
benchmarks/learning_margin.py runs these tasks with twenty seeds and prints how much: the smallest rises were 0.96
(DDPG), 0.70 (SAC), 0.97 (DQN) and 2.4 (Multi).
"""

import pytest
from conftest import evaluations

COMMON = "--run-name r"
SEEK = (
    '--env-id ContinuousSeek5-v0 --env-kwargs {"d":2} --total-timesteps 3000 --learning-starts 300 '
    "--eval-frequency 3000 --batch-size 128 --hidden-size 64 --learning-rate 2e-3"
)
BITS = (
    '--env-id BitFlip20-v0 --env-kwargs {"d":8,"max_episode_steps":8} --utd-ratio 0.3 --tau 0.005 '
    "--total-timesteps 12000 --eval-frequency 12000 --hidden-size 64"
)
SETS = (
    "--env-id goal_envs:Sets-v0 --no-normalize --gamma 0.9 --random-action-probability 0 "
    "--total-timesteps 2500 --learning-starts 400 --eval-frequency 2500 --hidden-size 32 --batch-size 64 "
    "--learning-rate 2e-3 --tau 0.02 --buffer-size 4000"
)
RATE = "success_rate"
TASKS = [  # script, flags, what is measured, and by how much it rises at least
    ("ddpg_her", SEEK, RATE, 0.6),
    ("ddpg_her_reengage", SEEK, RATE, 0.6),
    ("sac_her_reengage", f"{SEEK} --alpha 0", RATE, 0.4),
    ("sac_her_reengage", f"{SEEK} --alpha 0.1", RATE, 0.4),
    ("dqn_her_reengage", f"{BITS} --alpha 0", RATE, 0.6),
    ("dqn_her_reengage", BITS, RATE, 0.6),
    ("ddpg_multi_reengage", f"{SETS} --alpha 0", "episodic_return", 1.0),
    ("ddpg_multi_reengage", f"{SETS} --alpha 0.1", "episodic_return", 1.0),
]


@pytest.mark.parametrize(("script", "flags", "column", "rise"), TASKS, ids=[task[0] for task in TASKS])
def test_learns(run, tmp_path, script, flags, column, rise):
    finished = run(script, COMMON, flags)
    assert finished.status == 0, finished.err
    values = [float(row[column]) for row in evaluations(tmp_path / "runs" / "r")]
    assert values[-1] >= values[0] + rise
