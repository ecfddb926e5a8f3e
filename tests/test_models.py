"""The trained policies under models/: small, and as good as their page says."""

import re
import shutil

import numpy as np
import pytest
from conftest import ROOT, TESTS

MODELS = TESTS.parent / "models"


@pytest.mark.parametrize(
    ("name", "script", "value", "at_least"),
    [("DriveSeek-v0", "ddpg_multi_reengage", "return", 15), ("HandReach-v2", "ddpg_her_reengage", "success rate", 0.4)],
)
def test_a_model_is_small_and_works(run, tmp_path, name, script, value, at_least):
    """The thresholds are far below what the page says: 40 episodes scatter."""
    folder = tmp_path / name
    shutil.copytree(MODELS / name, folder)
    assert (folder / "policy.pt").stat().st_size < 2_000_000
    page = (folder / "README.md").read_text()
    assert f"{script}.py --env-id {name}" in page
    finished = run(ROOT / f"{script}.py", f"--evaluate {folder} --eval-episodes 40")
    assert finished.status == 0, finished.err
    assert float(re.search(rf"{value} (-?[\d.]+)", finished.out)[1]) >= at_least
    assert float(re.search(rf"{value} (-?[\d.]+)", page)[1]) >= at_least


def test_a_policy_acts_in_python_as_its_page_shows(monkeypatch):
    monkeypatch.chdir(TESTS.parent)
    (code,) = re.findall(r"```python\n(.+?)```", (TESTS.parent / "docs" / "ddpg_her.md").read_text(), re.DOTALL)
    exec(code, shown := {})
    assert shown["action"].shape == shown["env"].action_space.shape
    assert np.abs(shown["action"]).max() <= 1
    assert np.abs(shown["action"]).min() > 0
    success = False
    for seed in range(5):
        observation, _ = shown["env"].reset(seed=seed)
        for _ in range(50):
            action = shown["policy"]({name: part[None] for name, part in observation.items()})[0]
            observation, _, _, _, info = shown["env"].step(action)
            success |= bool(info["is_success"])
    assert success
