"""The scripts repeat each other letter for letter, except for the algorithm."""

import ast
import difflib

import pytest
from conftest import ROOT, SCRIPTS

# What each script has otherwise than ddpg_her_reengage.py; everything else with the same name is the same text.
OTHERWISE = {
    "ddpg_her": {
        "Args",
        "Batch",
        "HerReplayBuffer",
        "critic_loss",
        "check_rewards",
        "make_batches",
        "check_numbers",
        "parse_args",
    },
    "sac_her_reengage": {
        "Args",
        "Actor",
        "Critic",
        "critic_loss",
        "actor_loss",
        "Policy",
        "explore",
        "train",
        "check_numbers",
    },
    "dqn_her_reengage": {
        "Args",
        "HerReplayBuffer",
        "make_env",
        "Policy",
        "explore",
        "train",
        "check_numbers",
        "evaluate_run",
    },
    "ddpg_multi_reengage": {
        "Args",
        "Actor",
        "Critic",
        "Batch",
        "critic_loss",
        "actor_loss",
        "make_env",
        "check_rewards",
        "Policy",
        "dimensions",
        "make_batches",
        "train",
        "check_numbers",
        "evaluate_run",
        "parse_args",
    },
}

# At most so many lines are removed or added, the docstrings apart.
LINES = {"ddpg_her": 50, "sac_her_reengage": 200, "dqn_her_reengage": 200, "ddpg_multi_reengage": 450}


def read(script):
    return (ROOT / f"{script}.py").read_text()


def definitions(script):
    """Name → source of every function and class of a script, in its order."""
    source = read(script)
    kinds = (ast.FunctionDef, ast.ClassDef)
    return {
        node.name: ast.get_source_segment(source, node) for node in ast.parse(source).body if isinstance(node, kinds)
    }


@pytest.mark.parametrize("other", [script for script in SCRIPTS if script != "ddpg_her_reengage"])
def test_what_is_common_is_the_same_text_in_the_same_order(other):
    ours, theirs = definitions("ddpg_her_reengage"), definitions(other)
    common = [name for name in ours if name in theirs]
    assert common == [name for name in theirs if name in ours]
    assert len(common) > 20
    assert {name for name in common if ours[name] != theirs[name]} == OTHERWISE[other]


@pytest.mark.parametrize("other", LINES)
def test_the_diff_is_the_algorithm(other):
    def code(script):
        return read(script).splitlines()[ast.parse(read(script)).body[0].end_lineno :]

    diff = difflib.unified_diff(code("ddpg_her_reengage"), code(other), n=0, lineterm="")
    changed = [line for line in diff if line[0] in "+-" and line[:3] not in ("+++", "---")]
    assert 10 < len(changed) <= LINES[other], "\n".join(changed)
