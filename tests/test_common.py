"""The scripts repeat each other letter for letter, except for the algorithm."""

import ast
import difflib

import pytest
from conftest import ROOT, SCRIPTS

END = "# The algorithm ends here."  # what comes after it is the second half
# What each script has otherwise than ddpg_her_reengage.py; everything else with the same name is the same text.
OTHERWISE = {
    "ddpg_her": {"Args", "Batch", "ReplayBuffer.sample", "critic_loss", "check_env"},
    "sac_her_reengage": {
        *("Args", "Actor", "Actor.__init__", "Actor.forward", "Critic", "Critic.__init__", "Critic.forward"),
        *("Policy", "Policy.__init__", "Policy.forward", "Policy.explore", "actor_loss", "critic_loss", "train"),
    },
    "dqn_her_reengage": {
        *("Args", "critic_loss", "empty_episodes", "play", "ReplayBuffer.sample", "train", "check_env"),
        *("Policy", "Policy.__init__", "Policy.forward", "Policy.explore"),
    },
    "ddpg_multi_reengage": {
        *("Args", "Actor", "Actor.__init__", "Actor.forward", "Critic", "Critic.__init__", "Critic.forward"),
        *("Policy", "Policy.__init__", "Policy.goal", "Policy.forward", "Policy.explore", "Policy.update_normalizers"),
        *("Batch", "ReplayBuffer.__init__", "ReplayBuffer.sample", "actor_loss", "critic_loss", "train", "check_env"),
    },
}
# Of these, the second half has what depends on the kind of goals and actions; Multi-ReenGAGE checks rewards by itself.
SECOND_HALF = {"check_env"}
ADDED_TO_THE_SECOND_HALF = {"drawable", "check_rewards"}

# Where little is otherwise, so many lines are removed or added.
CHANGED = {("dqn_her_reengage", "play"): 6, ("dqn_her_reengage", "ReplayBuffer.sample"): 2}
CHANGED |= {("dqn_her_reengage", "empty_episodes"): 2}
# At most so many lines are removed or added, the docstrings apart.
LINES = {"ddpg_her": 45, "sac_her_reengage": 180, "dqn_her_reengage": 180, "ddpg_multi_reengage": 340}


def read(script):
    return (ROOT / f"{script}.py").read_text()


def definitions(source):
    """Name → source of every function and class, in its order; of a class, what comes before its methods, and these."""
    found = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef):
            found[node.name] = ast.get_source_segment(source, node)
        elif isinstance(node, ast.ClassDef):
            methods = [each for each in node.body if isinstance(each, ast.FunctionDef)]
            whole = ast.get_source_segment(source, node)
            found[node.name] = whole[: whole.index(ast.get_source_segment(source, methods[0]))] if methods else whole
            name = node.name.replace("HerReplayBuffer", "ReplayBuffer")
            found |= {f"{name}.{method.name}": ast.get_source_segment(source, method) for method in methods}
    return found


@pytest.mark.parametrize("other", [script for script in SCRIPTS if script != "ddpg_her_reengage"])
def test_what_is_common_is_the_same_text_in_the_same_order(other):
    ours, theirs = definitions(read("ddpg_her_reengage")), definitions(read(other))
    common = [name for name in ours if name in theirs]
    assert common == [name for name in theirs if name in ours]
    assert len(common) > 20
    assert {name for name in common if ours[name] != theirs[name]} == OTHERWISE[other]


def changed_lines(one, other):
    diff = difflib.unified_diff(one, other, n=0, lineterm="")
    return [line for line in diff if line[0] in "+-" and line[:3] not in ("+++", "---")]


@pytest.mark.parametrize(("other", "name"), CHANGED)
def test_what_is_nearly_common_differs_in_few_lines(other, name):
    ours, theirs = (definitions(read(script))[name].splitlines() for script in ("ddpg_her_reengage", other))
    assert len(changed_lines(ours, theirs)) == CHANGED[other, name]


@pytest.mark.parametrize("other", [script for script in SCRIPTS if script != "ddpg_her_reengage"])
def test_the_constants_that_all_share_are_the_same(other):
    """But for SAC's temperature, which must be above 0."""

    def constants(script):
        end = read(script)[read(script).index(END) :]
        kinds = (ast.Assign, ast.AnnAssign, ast.AugAssign)
        return [ast.unparse(node) for node in ast.parse(end).body if isinstance(node, kinds)]

    ours = constants("ddpg_her_reengage")
    if other == "sac_her_reengage":
        ours = [line.replace("tau=1e-12)", "tau=1e-12, temperature=1e-12)") for line in ours]
    assert constants(other) == ours


@pytest.mark.parametrize("other", [script for script in SCRIPTS if script != "ddpg_her_reengage"])
def test_what_surrounds_the_algorithm_is_the_same_text(other):
    ours, theirs = (definitions(source[source.index(END) :]) for source in map(read, ("ddpg_her_reengage", other)))
    assert theirs.keys() - ours.keys() <= ADDED_TO_THE_SECOND_HALF
    assert not ours.keys() - theirs.keys()
    assert {name for name in ours if ours[name] != theirs[name]} <= SECOND_HALF


@pytest.mark.parametrize("other", LINES)
def test_the_diff_is_the_algorithm(other):
    def code(script):
        return read(script).splitlines()[ast.parse(read(script)).body[0].end_lineno :]

    changed = changed_lines(code("ddpg_her_reengage"), code(other))
    assert 10 < len(changed) <= LINES[other], "\n".join(changed)


def test_the_algorithm_comes_first(module, script):
    """Its loss begins on the third screen, train is short, and what comes after train surrounds it."""
    source = read(script)
    nodes = {node.name: node for node in ast.parse(source).body if hasattr(node, "name")}
    loss, train = nodes["critic_loss"], nodes["train"]
    assert loss.lineno <= 230
    assert train.end_lineno - train.lineno < 80
    assert 0 < source[: source.index(END)].count("\n") - train.end_lineno < 6
