"""The trained policies under models/: small, and as good as their page says."""

import re
import shutil

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
