"""On a GPU the update is one CUDA graph, which computes what its kernels do one by one; skipped where there is none.

TEST_ON_GPU=1 python -m pytest tests/test_cuda.py
"""

from dataclasses import replace

import gymnasium as gym
import pytest
import torch
from conftest import SEEK, SMALL

import ddpg_multi_reengage as multi

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def parts_after_a_round(module, run_name, settings):
    """What the checkpoint holds after an episode and a hundred updates or more."""
    args = module.parse_args([*f"{SEEK[module.__name__]} {SMALL}".split(), *settings])
    args = replace(args, learning_starts=0, num_envs=1, total_timesteps=1, utd_ratio=10.0, run_name=run_name)
    return torch.load(module.train(args) / "checkpoint.pt", weights_only=True)


@pytest.mark.parametrize("settings", [[], ["--alpha", "0"], ["--env-id", "DriveSeek-v0", "--architecture", "cnn"]])
def test_a_graph_computes_what_its_kernels_do(module, settings, monkeypatch, tmp_path, capsys):
    if settings and not hasattr(module.Args, settings[-2][2:]):
        pytest.skip("has no such option")
    monkeypatch.chdir(tmp_path)
    graph = parts_after_a_round(module, "graph", settings)
    output = capsys.readouterr()
    assert "no CUDA graph" not in output.out + output.err
    monkeypatch.setattr(module, "CudaGraph", lambda update: update)
    kernels = parts_after_a_round(module, "kernels", settings)
    assert graph["counters"]["updates"] == kernels["counters"]["updates"] >= 100
    for part, values in kernels["parts"].items():
        for name, value in values.items():
            if part.endswith(("policy", "critic", "actor", "network", "temperature")):
                torch.testing.assert_close(graph["parts"][part][name], value, rtol=1e-2, atol=1e-3)


def test_padding_that_is_encoded_changes_nothing():
    """On a GPU SetEncoder encodes padding as well, and leaves it out of the sum."""
    goals = gym.make("DriveSeek-v0").observation_space["desired_goal"]
    encoder = multi.SetEncoder(4, goals, multi.Args())
    gate = torch.arange(200) < torch.tensor([[1], [70], [200]])
    inputs = torch.randn(3, 4), torch.randn(3, 200, 2), gate.float()
    expected = encoder(*inputs)
    torch.testing.assert_close(encoder.cuda()(*(x.cuda() for x in inputs)).cpu(), expected, rtol=1e-3, atol=1e-4)


def test_where_capturing_fails_updates_run_kernel_by_kernel(module, capsys):
    total = torch.zeros((), device="cuda")

    def update(batch):
        total.add_(batch.reward.sum().item())  # waits for the GPU, which a graph cannot
        return dict(total=total)

    call = module.CudaGraph(update)
    for i in range(8):
        call(module.Batch(*[torch.full((2,), float(i), device="cuda")] * len(module.Batch._fields)))
    assert total.item() == 2 * sum(range(8))
    output = capsys.readouterr()
    assert (output.out + output.err).count("no CUDA graph could be captured") == 1
