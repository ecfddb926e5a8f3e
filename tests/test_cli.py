"""The command line: help, defaults, bad input, what a run writes, evaluation, copied files, other environments."""

import ast
import dataclasses
import importlib
import json
import os
import pickle
import re
import shlex
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
import tyro
from conftest import (
    CONTINUOUS,
    DISCRETE,
    DISTINCT,
    ROOT,
    SCRIPTS,
    SEEK,
    SETS,
    SINGLE,
    SMALL,
    TARGET_ACTOR,
    TESTS,
    all_finite,
    assert_same,
    checkpoint,
    episodes_of,
    evaluations,
    fitting,
    learned,
)
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

# ------------------------------------------------------------ help and defaults


def shown_defaults(text):
    """What --help says each flag's default is."""
    text = " ".join(re.sub(r"[│╭╮╰╯─]", " ", text).split())
    parts = re.split(r" (?=--[a-z])", text)
    found = {}
    for part in parts:
        if default := re.search(r"\(default: (.*?)\)", part):
            found.setdefault(part.split()[0].replace("--no-", "--"), default[1])
    return found


SEEK5 = {
    "--total-timesteps": "12000", "--hidden-layers": "2", "--gamma": "0.95", "--tau": "0.005", "--batch-size": "512",
    "--exploration-noise": "0.03", "--random-action-probability": "0.0", "--normalize": "False",
    "--learning-starts": "1000", "--eval-frequency": "2000", "--eval-episodes": "50", "--her-k": "4",
    "--her-strategy": "future", "--utd-ratio": "1.0", "--num-envs": "1", "--hidden-size": "256",
    "--buffer-size": "1000000", "--action-l2": "0.0",
}  # fmt: skip
SAC_SEEK = {name: value for name, value in SEEK5.items() if name not in ("--exploration-noise", "--action-l2")}
SAC_SEEK |= {"--learning-rate": "0.0025", "--temperature": "1.0", "--autotune": "True"}
HAND = {
    "--hidden-layers": "3", "--learning-rate": "0.001", "--gamma": "0.98", "--tau": "0.005", "--utd-ratio": "0.05",
    "--num-envs": "16", "--random-action-probability": "0.3", "--exploration-noise": "0.2",
    "--normalize": "True", "--clip-target": "True", "--action-l2": "1.0", "--learning-starts": "0",
    "--batch-size": "512", "--total-timesteps": "500000", "--eval-frequency": "20000", "--eval-episodes": "100",
    "--hidden-size": "256", "--her-k": "4", "--buffer-size": "1000000",
}  # fmt: skip
BIT_FLIP = {
    "--hidden-layers": "1", "--gamma": "0.98", "--tau": "0.00128", "--num-envs": "16", "--batch-size": "128",
    "--random-action-probability": "0.2", "--learning-rate": "0.001", "--normalize": "False",
    "--clip-target": "False", "--learning-starts": "0", "--temperature": "0.5", "--soft-target": "gradient",
    "--hidden-size": "256", "--her-k": "4", "--eval-episodes": "100", "--buffer-size": "1000000",
}  # fmt: skip
MULTI = {
    "--hidden-layers": "1", "--hidden-size": "400", "--encoder-layers": "2", "--embedding-size": "20",
    "--architecture": "deepsets", "--separate-encoders": "False", "--batch-size": "256", "--learning-rate": "0.001",
    "--gamma": "0.95", "--tau": "0.005", "--learning-starts": "1000", "--random-action-probability": "0.0",
    "--normalize": "False", "--eval-frequency": "4000", "--eval-episodes": "100",
    "--total-timesteps": "160000", "--utd-ratio": "1.0", "--num-envs": "1", "--checkpoint-frequency": "4000",
}  # fmt: skip


@pytest.mark.parametrize(
    ("script", "env_id", "expected"),
    [
        ("ddpg_her", "ContinuousSeek5-v0", SEEK5 | {"--learning-rate": "0.001"}),
        (
            "ddpg_her",
            "ContinuousSeek10-v0",
            SEEK5 | {"--batch-size": "256", "--learning-rate": "0.0005", "--total-timesteps": "50000"},
        ),
        (
            "ddpg_her",
            "ContinuousSeek-v0",
            SEEK5 | {"--batch-size": "256", "--learning-rate": "0.0005", "--total-timesteps": "400000"},
        ),
        ("ddpg_her", "HandReach-v3", HAND),
        ("ddpg_her_reengage", "ContinuousSeek5-v0", SEEK5 | {"--learning-rate": "0.0015", "--alpha": "0.04"}),
        (
            "ddpg_her_reengage",
            "ContinuousSeek10-v0",
            SEEK5 | {"--learning-rate": "0.001", "--alpha": "0.02", "--total-timesteps": "50000"},
        ),
        (
            "ddpg_her_reengage",
            "ContinuousSeek-v0",
            SEEK5
            | {"--batch-size": "128", "--learning-rate": "0.0005", "--alpha": "0.01", "--total-timesteps": "400000"},
        ),
        ("ddpg_her_reengage", "HandReach-v2", HAND | {"--alpha": "0.01", "--c-low": "-1.0"}),
        ("sac_her_reengage", "ContinuousSeek5-v0", SAC_SEEK | {"--alpha": "0.04"}),
        ("sac_her_reengage", "ContinuousSeek10-v0", SAC_SEEK | {"--alpha": "0.02", "--total-timesteps": "50000"}),
        ("sac_her_reengage", "ContinuousSeek-v0", SAC_SEEK | {"--alpha": "0.01", "--total-timesteps": "400000"}),
        (
            "dqn_her_reengage",
            "BitFlip-v0",
            BIT_FLIP
            | {"--alpha": "0.025", "--utd-ratio": "0.0625"}
            | {"--total-timesteps": "1600000", "--eval-frequency": "40000"},
        ),
        (
            "dqn_her_reengage",
            "BitFlip20-v0",
            BIT_FLIP
            | {"--alpha": "0.05", "--utd-ratio": "0.125"}
            | {"--total-timesteps": "200000", "--eval-frequency": "2000"},
        ),
        ("ddpg_multi_reengage", "DriveSeek-v0", MULTI | {"--alpha": "0.1", "--exploration-noise": "0.05"}),
        ("ddpg_multi_reengage", "NoisySeek-v0", MULTI | {"--alpha": "0.5", "--exploration-noise": "0.1"}),
    ],
)
def test_help_shows_the_papers_settings(run, script, env_id, expected):
    finished = run(script, "--help --env-id", env_id)
    assert finished.status == 0
    assert finished.err == ""
    shown = shown_defaults(finished.out)
    assert {name: shown.get(name) for name in expected} == expected


def test_help_explains_every_flag(run, module, script):
    text = run(script, "--help").out
    for field in dataclasses.fields(module.Args):
        assert f"--{field.name.replace('_', '-')}" in text
    shown = " ".join(re.sub(r"[│╭╮╰╯─]", " ", text).split())
    source = (ROOT / f"{script}.py").read_text()
    explained = dict(re.findall(r"^    (\w+): .+?  # (.+)$", source[: source.index("\ndef ")], flags=re.MULTILINE))
    for field in dataclasses.fields(module.Args):
        assert explained[field.name].split("`")[0][:25] in shown, field.name


@pytest.mark.parametrize("script", [name for name in SINGLE if name in CONTINUOUS])
def test_explicit_flags_win(module):
    args = module.parse_args(["--env-id", "ContinuousSeek5-v0", "--batch-size", "33", "--gamma", "0.5", "--normalize"])
    assert (args.batch_size, args.gamma, args.normalize) == (33, 0.5, True)
    assert (args.hidden_layers, args.total_timesteps) == (2, 12_000)
    args = module.parse_args(["--batch_size=34", "--env-id=ContinuousSeek10-v0"])
    assert (args.batch_size, args.total_timesteps) == (34, 50_000)
    assert module.parse_args(["--env-id", "envs:ContinuousSeek5-v0"]).total_timesteps == 12_000
    assert module.parse_args(["--env-id", "HandReach-v2", "--no-clip-target"]).clip_target is False


def test_the_baseline_has_the_same_settings_but_for_what_the_paper_tuned():
    baseline, reengage = (importlib.import_module(name) for name in ("ddpg_her", "ddpg_her_reengage"))
    for env_id in ("ContinuousSeek-v0", "ContinuousSeek5-v0", "ContinuousSeek10-v0", "HandReach-v3", "FetchReach-v4"):
        one, other = (dataclasses.asdict(module.parse_args(["--env-id", env_id])) for module in (baseline, reengage))
        tuned = {"batch_size", "learning_rate"} if "Seek" in env_id else set()
        assert {name for name in one if one[name] != other[name]} <= tuned
        assert other.keys() - one.keys() == {"alpha", "c_low", "dense"}


# ------------------------------------------------------------ bad input


def refused(finished, folder, *words, left=()):
    """One clear line, exit status 2, nothing written."""
    assert finished.status == 2, finished
    assert finished.out == ""
    assert "Traceback" not in finished.err
    assert finished.err.count("\n") == 1, finished.err
    assert sorted(path.name for path in folder.iterdir()) == sorted(left)
    for word in words:
        assert word in finished.err
    return True


BAD_ENVIRONMENTS = [  # that cannot be made, which is the same text in all scripts (test_common.py)
    ("--env-id ContinuousSeak5-v0", ["ContinuousSeak5-v0", "Did you mean: `ContinuousSeek5`"]),
    ("--env-id HandReach-v9", ["HandReach-v9", "`v2`"]),
    ("--env-id FetchReech-v4", ["Did you mean: `FetchReach`"]),
    ("--env-id nothing_like_this", ["nothing_like_this"]),
    ("--env-id no_such_module:Id-v0", ["no_such_module"]),
    ("--env-id a/b/c:d", ["a/b/c:d"]),
    ("--env-id=", ["environment"]),
    ("--env-id FetchReach-v1", ["FetchReach-v1"]),
    ("--env-id ContinuousSeek5", ["ContinuousSeek5 is ContinuousSeek5-v0", "whole name"]),
    ("--env-id goal_envs:Wordless-v0", ["cannot be made", "AssertionError"]),
    ("--env-kwargs {d:7}", ["--env-kwargs", "JSON"]),
    ("--env-kwargs [7]", ["--env-kwargs", "JSON"]),
    ("--env-kwargs 7", ["--env-kwargs", "JSON"]),
    ("--env-kwargs=", ["--env-kwargs", "JSON"]),
    ('--env-kwargs {"dimension":7}', ["dimension"]),
    ('--env-kwargs {"d":0}', ["-v0 cannot be made"]),
    ('--env-kwargs {"d":"x"}', ["-v0 cannot be made"]),
    ('--env-kwargs {"d":2.5}', ["-v0 cannot be made"]),
    ('--env-kwargs {"reward_type":"other"}', ["reward_type"]),
    ('--env-kwargs {"id":"x"}', ["--env-kwargs"]),
    ('--env-kwargs {"max_episode_steps":0}', ["max_episode_steps"]),
    ('--env-kwargs {"max_episode_steps":-1}', []),
    ('--env-kwargs {"max_episode_steps":"x"}', []),
]
UNFIT = [
    ("--env-id Pendulum-v1", ["Pendulum-v1", "multi-goal"]),
    ("--env-id CartPole-v1", ["CartPole-v1", "multi-goal"]),
    ("--env-id goal_envs:Endless-v0", ["time limit"]),
]
FOR_SINGLE_GOALS = [
    ("--env-id DriveSeek-v0", ["DriveSeek-v0"]),
    ("--env-id NoisySeek-v0", ["NoisySeek-v0"]),
    ("--env-id goal_envs:Mixed-v0", ["shape or type"]),
    ("--env-id goal_envs:OneGoal-v0", ["compute_reward"]),
    ("--env-id goal_envs:Strict-v0", ["compute_reward", "one goal"]),
    ('--env-id goal_envs:Walk-v0 --env-kwargs {"cost":0.1}', ["compute_reward"]),
    ('--env-id goal_envs:Walk-v0 --env-kwargs {"deaf":true}', ["compute_reward", "no more"]),
    ("--env-id goal_envs:Walk-v0 --clip-target", ["--clip-target", "from −1 to 0"]),
]
FOR_SETS = [
    ("--env-id BitFlip-v0", ["BitFlip-v0", "goal sets"]),
    ("--env-id ContinuousSeek-v0", ["ContinuousSeek-v0", "goal sets"]),
    ("--env-id HandReach-v2", ["HandReach-v2", "goal sets"]),
]


@pytest.mark.parametrize("script", [script for script in SCRIPTS if script != "sac_her_reengage"])
def test_bad_environments(run, tmp_path, script):
    """SAC's check is the same text as that of ddpg_her_reengage.py."""
    cases = [*UNFIT, *(FOR_SETS if script in SETS else FOR_SINGLE_GOALS)]
    if script == "ddpg_her":
        cases += [*BAD_ENVIRONMENTS, ("--num-envs 4 --buffer-size 79", ["--buffer-size must hold 2 episodes of 10"])]
    elif script in SINGLE:  # by the shape of its goals, as the reward that --c-low names is there
        cases.append(("--env-id DriveSeek-v0 --c-low 0", ["DriveSeek-v0", "shape"]))
    if script in DISCRETE:
        cases.append(("--env-id ContinuousSeek-v0", ["continuous", "ddpg_her_reengage.py"]))
    elif script in SINGLE:
        cases.append(("--env-id BitFlip-v0", ["discrete", "dqn_her_reengage.py"]))
        cases.append(("--env-id goal_envs:Whole-v0", ["float", "int64"]))
        cases.append(("--env-id goal_envs:Mute-v0", ["compute_reward fails", "AttributeError"]))
    check_refusals(run, tmp_path, script, cases)


def check_refusals(run, tmp_path, script, cases):
    """Runs all cases, and reports all that fail at once."""
    failures = []
    for flags, words in cases:
        env_id = "" if "--env-id" in flags else SEEK[script].split(" --env-kwargs")[0]
        finished = run(script, env_id, "--total-timesteps 20 --run-name x", fitting(script, flags))
        try:
            refused(finished, tmp_path, *words)
        except AssertionError as error:
            failures.append(f"{flags}: {str(error)[-800:]}")
            shutil.rmtree(tmp_path / "runs", ignore_errors=True)
    assert not failures, "\n\n".join(failures)


NUMBERS = {
    "seed": [-1],
    "total-timesteps": [0, -5],
    "num-envs": [0, -1],
    "encoder-layers": [0],
    "embedding-size": [0],
    "hidden-layers": [0, 100_000],
    "hidden-size": [0, 10_000_000],
    "learning-rate": [0, -1, "nan", "inf"],
    "batch-size": [0, -1, 1_000_000_000],
    "buffer-size": [0, 10, 19],
    "gamma": [1, 1.5, -0.1, "nan"],
    "tau": [0, 1.1, "nan"],
    "utd-ratio": [-1, "nan", "inf"],
    "learning-starts": [-1],
    "exploration-noise": [-0.1, "nan", "inf"],
    "random-action-probability": [-0.1, 1.1, "nan"],
    "her-k": [-1],
    "action-l2": [-1, "nan", "inf"],
    "eval-frequency": [0],
    "eval-episodes": [0],
    "checkpoint-frequency": [0],
    "alpha": [-1, "nan", "inf"],
    "temperature": [0, -1, "nan", "inf"],  # of SAC
    "c-low": ["nan", -2, "inf"],
    "run-name": ["../x", "..", ".", "/tmp/x", "a/../x", "a//b", "a/", "x\\y", ".x", "~"],
}


def test_numbers_out_of_range(run, tmp_path, script, module):
    """The check is the same text in all scripts (test_common.py): each number is tried in the first that has it."""
    names = {field.name for field in dataclasses.fields(module.Args)}
    for earlier in SCRIPTS[: SCRIPTS.index(script)]:
        names -= {field.name for field in dataclasses.fields(importlib.import_module(earlier).Args)}
    cases = [
        (f"--{flag}={value}", [f"--{flag}"])
        for flag, values in NUMBERS.items()
        if flag.replace("-", "_") in names
        for value in values
    ]
    check_refusals(run, tmp_path, script, cases)


@pytest.mark.parametrize("script", DISTINCT[:1])
def test_what_cannot_be_parsed_is_refused_by_tyro(run, tmp_path, script):
    for flags in ("--batch-size many", "--no-such-flag", "--her-strategy never", "--env-id", "--batch-size 1.5"):
        finished = run(script, flags)
        assert finished.status == 2
        assert "Traceback" not in finished.err
        assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("script", [script for script in DISTINCT if script in SINGLE])
def test_rewards_must_fit_the_loss(run, tmp_path, script):
    cases = [
        ("--dense", ["--dense"]),
        ("--env-id FetchReachDense-v4 --dense --clip-target", ["--clip-target"]),
        ("--c-low -0.5", ["--c-low", "-1"]),
        ("--env-id goal_envs:Walk-v0", ["--c-low", "0"]),
        ("--env-id goal_envs:Walk-v0 --c-low 0 --dense", ["--dense"]),
        ("--env-id FetchReachDense-v4", ["--c-low"]),
    ]
    check_refusals(run, tmp_path, script, cases)


def test_an_existing_run_is_not_overwritten(run, tmp_path, script):
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    refused(run(script, SEEK[script], "--run-name mine"), tmp_path, "runs/mine", left=["runs"])
    assert not list((tmp_path / "runs" / "mine").iterdir())


class Malicious:
    """Unpickling it creates a file."""

    def __reduce__(self):
        return os.system, ("touch executed",)


@pytest.mark.parametrize(
    ("file", "flags"), [("checkpoint.pt", "--total-timesteps 100 --resume"), ("policy.pt", "--evaluate")]
)
@pytest.mark.parametrize("script", DISTINCT[:1])
def test_bad_checkpoints(run, train, tmp_path, script, file, flags):
    good = train(script, "good", SEEK[script], "--total-timesteps 60")
    data, saved = (good / file).read_bytes(), torch.load(good / file, weights_only=True)
    other = dict(saved, script="another_script", args=saved["args"] | {"another_setting": 1})
    without_setting = dict(saved, args={k: v for k, v in saved["args"].items() if k != "gamma"} | {"gama": 0.9})
    other_shape = dict(saved, args=saved["args"] | {"env_kwargs": '{"d": 3}'})
    bad = {  # content of the file, and what the line says
        "missing": (None, "no checkpoint"),
        "empty": (b"", "damaged"),
        "truncated": (data[: len(data) // 2], "damaged"),
        "nearly": (data[:-10], "damaged"),
        "garbage": (b"garbage" * 1000, "damaged"),
        "list": ([1, 2], "damaged"),
        "other": (other, "another_script"),
        "changed": (without_setting, "damaged"),
        "shape": (other_shape, "does not fit"),
        "no_parts": (dict(saved, parts={}), "does not fit"),
        "pickle": (pickle.dumps(Malicious()), "damaged"),
        "malicious": (dict(saved, counters=Malicious()), "damaged"),
        "legacy": (Malicious(), "damaged"),
    }
    failures = []
    for name, (content, words) in bad.items():
        folder = tmp_path / "runs" / name
        folder.mkdir()
        path = folder / file
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif content is not None:
            torch.save(content, path, _use_new_zipfile_serialization=name != "legacy")
        before = sorted(folder.iterdir())
        finished = run(script, flags, f"runs/{name}")
        try:
            refused(finished, tmp_path, words, left=["runs"])
            assert sorted(folder.iterdir()) == before
        except AssertionError as error:
            failures.append(f"{name}: {str(error)[-600:]}")
    assert not failures, "\n\n".join(failures)


@pytest.mark.parametrize("script", DISTINCT[:1])
def test_a_run_keeps_its_settings(run, train, tmp_path, script):
    folder = train(script, "r", SEEK[script], "--total-timesteps 60")
    before = (folder / "checkpoint.pt").read_bytes()
    for flags, word in (
        ("--env-id HandReach-v2", "--env-id"),
        ("--gamma 0.5", "--gamma"),
        ("--batch-size 17", "--batch-size"),
        ("--seed 5", "--seed"),
        ("--run-name other", "--run-name"),
        ("--total-timesteps 60", "--total-timesteps"),  # there already
        ("--total-timesteps 20", "--total-timesteps"),
    ):
        finished = run(script, f"--resume {folder.relative_to(tmp_path)}", flags)
        refused(finished, tmp_path, word, left=["runs"])
    assert (folder / "checkpoint.pt").read_bytes() == before


@pytest.mark.parametrize(("how", "words"), [("raise", "KeyError"), ("exit", "process"), ("goal", "goal")])
@pytest.mark.parametrize("num_envs", [1, 3])
@pytest.mark.parametrize("script", DISTINCT[:1])
def test_an_environment_that_breaks_is_one_line(run, tmp_path, script, how, words, num_envs):
    """Also in a process of its own; the run so far is kept."""
    if how == "exit" and num_envs == 1:
        pytest.skip("it would be the script's own process that ends")
    flags = f'--env-id goal_envs:Broken-v0 --env-kwargs {{"how":"{how}"}} --total-timesteps 3000 --run-name r --alpha 0'
    finished = run(script, SMALL, flags, f"--num-envs {num_envs} --learning-starts 30 --checkpoint-frequency 10")
    assert finished.status == 1
    assert finished.err.count("\n") == 1, finished.err
    assert words in finished.err
    assert checkpoint(tmp_path / "runs" / "r")["counters"]["global_step"] > 0


# ------------------------------------------------------------ what a run produces


def test_what_a_run_writes(run, tmp_path, script):
    finished = run(script, SMALL, SEEK[script], "--total-timesteps 1030 --eval-frequency 500 --run-name r --seed 3")
    assert finished.status == 0
    assert finished.err == ""
    folder = tmp_path / "runs" / "r"
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]
    assert [path.name for path in folder.parent.iterdir()] == ["r"]

    lines = (folder / "evaluations.csv").read_text().splitlines()
    by_actor = ["success_rate_actor"] if script in TARGET_ACTOR else []
    assert lines[0].split(",") == ["global_step", "success_rate", "episodic_return", *by_actor, "wall_seconds"]
    rows = evaluations(folder)
    assert [row["global_step"] for row in rows] == ["0", "500", "1000", "1030"]
    assert all(0 <= float(row["success_rate"]) <= 1 and abs(float(row["episodic_return"])) <= 10 for row in rows)
    seconds = [float(line.split(",")[-1]) for line in lines[1:]]
    assert seconds == sorted(seconds)

    result = finished.out.splitlines()[-1]
    assert f"success rate {float(rows[-1]['success_rate']):.2f}" in result
    assert "1030 steps" in result
    assert "runs/r" in result

    (events,) = folder.glob("events.out.tfevents.*")
    log = EventAccumulator(str(events)).Reload()
    scalars = {"charts/success_rate", "charts/episodic_return", "charts/SPS"}
    scalars |= {"losses/value_loss", "losses/q", *(f"charts/{name}" for name in by_actor)}
    if script in CONTINUOUS:
        scalars.add("losses/actor_loss")
    if "reengage" in script:
        scalars.add("losses/gradient_loss")
    if script == "sac_her_reengage":
        scalars |= {"losses/entropy", "losses/temperature"}
    assert set(log.Tags()["scalars"]) == scalars
    assert [event.step for event in log.Scalars("charts/success_rate")] == [0, 500, 1000, 1030]
    assert [event.step for event in log.Scalars("losses/q")] == [500, 1000, 1030]
    for row, event in zip(rows, log.Scalars("charts/episodic_return"), strict=True):
        assert event.value == pytest.approx(float(row["episodic_return"]))
    (table,) = log.Tensors("hyperparameters/text_summary")
    table = table.tensor_proto.string_val[0].decode()
    assert "|batch_size|16|" in table
    assert "|seed|3|" in table

    saved = checkpoint(folder)
    assert saved["script"] == script
    assert saved["args"]["seed"] == 3
    assert saved["counters"]["global_step"] == 1030


@pytest.mark.parametrize("script", TARGET_ACTOR)
def test_an_evaluation_has_the_actor_beside_its_average(train, module, script):
    folder = train(script, "r", '--env-id ContinuousSeek5-v0 --env-kwargs {"d":1} --total-timesteps 400',
                   "--eval-frequency 20 --learning-starts 0")  # fmt: skip
    saved, rows = checkpoint(folder), evaluations(folder)
    args = module.Args(**saved["args"])
    env = module.make_env(args)
    policy = module.Policy(env, args)
    policy.load_state_dict(saved["parts"]["policy"])
    by_actor = module.evaluate(lambda seen: policy(seen, policy.actor), env, module.make_vector_env(env, 1), args)
    assert float(rows[-1]["success_rate_actor"]) == by_actor["success_rate"]
    assert any(row["success_rate_actor"] != row["success_rate"] for row in rows)


def test_evaluate_repeats_the_last_evaluation(run, train, tmp_path, script):
    """policy.pt is enough for it, and has the weights of the end."""
    flags = SEEK[script].replace('"d":2', '"d":2,"reward_type":"dense"')  # a return for every policy
    flags += " --dense" if "dense" in flags and "reengage" in script else ""
    folder = train(script, "r", flags, "--total-timesteps 200 --eval-episodes 7 --normalize --num-envs 2")
    policy = torch.load(folder / "policy.pt", weights_only=True)["parts"]["policy"]
    assert_same(policy, checkpoint(folder)["parts"]["policy"])
    (folder / "checkpoint.pt").unlink()
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    finished = run(script, "--evaluate runs/r")
    assert (finished.status, finished.err) == (0, "")
    last = evaluations(folder)[-1]
    assert f"success rate {float(last['success_rate']):.2f}" in finished.out
    assert f"return {float(last['episodic_return']):.2f}" in finished.out
    assert "200 steps" in finished.out
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_success_is_what_the_environment_says(train):
    """As `is_success` or as `success`; where it says nothing, nan."""
    flags = "--env-id goal_envs:Walk-v0 --c-low 0 --total-timesteps 60 --eval-episodes 40"
    rates = []
    for name in ("is_success", "success", "nothing"):
        folder = train(DISTINCT[0], name, flags, f'--env-kwargs {{"success":"{name}"}}')
        rates.append(float(evaluations(folder)[-1]["success_rate"]))
    assert 0 < rates[0] < 1
    assert rates[0] == rates[1]
    assert np.isnan(rates[2])


def assert_gif(path, least):
    from PIL import Image

    frames = Image.open(path)
    assert frames.format == "GIF"
    assert frames.n_frames >= least
    pictures = []
    for i in range(frames.n_frames):
        frames.seek(i)
        pictures.append(np.asarray(frames.convert("RGB")))
    assert max(picture.std() for picture in pictures) > 1
    assert len({picture.tobytes() for picture in pictures}) >= least


@pytest.mark.parametrize("script", DISTINCT)
def test_capture_video(run, tmp_path, script):
    flags = '--env-kwargs {"max_episode_steps":4} --total-timesteps 60 --capture-video --run-name r'
    finished = run(script, SMALL, SEEK[script], flags)
    assert finished.status == 0, finished.err
    gif = tmp_path / "runs" / "r" / "episodes.gif"
    assert_gif(gif, 16)  # of 20: four episodes
    gif.unlink()
    assert run(script, "--evaluate runs/r").status == 0
    assert not gif.exists()  # whoever gets a policy asks for a video, or has none
    finished = run(script, "--evaluate runs/r --capture-video")
    assert finished.status == 0, finished.err
    assert "episodes.gif" in finished.out
    assert_gif(gif, 16)


def test_a_video_that_cannot_be_drawn_is_refused_at_once(run, tmp_path, script):
    flags = "--env-id goal_envs:Poison-v0 --capture-video --total-timesteps 60"
    refused(run(script, SMALL, fitting(script, flags)), tmp_path, "render")


@pytest.mark.parametrize("script", DISTINCT)
def test_a_video_without_imageio_is_refused_at_once(module, script, monkeypatch):
    monkeypatch.setitem(sys.modules, "imageio", None)  # as if it were not installed
    with pytest.raises(module.InputError, match="pip install imageio"):
        module.make_env(module.Args(env_id=SEEK[script].split()[1], capture_video=True))


def test_the_video_s_environment_has_its_own_keywords(module, script):
    args = module.Args(env_id=SEEK[script].split()[1], env_kwargs='{"max_episode_steps": 4}')
    assert module.make_env(args, max_episode_steps=5).spec.max_episode_steps == 5


# ------------------------------------------------------------ as users call it


def real(folder, *argv, path=None):
    """python script.py in a fresh interpreter, without this project on its path."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    if path:
        environment["PYTHONPATH"] = str(path)
    command = [sys.executable, *argv]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


PAGES = [TESTS.parent / "README.md", *sorted((TESTS.parent / "docs").glob("*.md"))]
COMMANDS = [
    command for page in PAGES for command in re.findall(r"^    python ((?:ddpg|sac|dqn)_.+)$", page.read_text(), re.M)
]


@pytest.mark.parametrize("command", COMMANDS)
def test_the_pages_commands_have_flags_of_the_script(command):
    script, *flags = shlex.split(command, comments=True)
    module = importlib.import_module(script.removesuffix(".py"))
    args = tyro.cli(module.Args, args=[flag for flag in flags if flag != "--help"])
    json.loads(args.env_kwargs)


def test_a_copied_file_imports_what_readme_installs(script):
    tree = ast.parse((ROOT / f"{script}.py").read_text())
    names = [node.module for node in tree.body if isinstance(node, ast.ImportFrom)]
    names += [alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names]
    needed = {name.split(".")[0] for name in names} - sys.stdlib_module_names - {"envs"}
    installed = re.search(r"^    pip install (.+)$", PAGES[0].read_text(), re.M)[1]
    assert needed | {"tensorboard"} == set(installed.split())  # which PyTorch's SummaryWriter is from


def test_copied_alone_trains_on_fetch(tmp_path, script):
    """Without envs.py, and with the only line that names it deleted."""
    source = (ROOT / f"{script}.py").read_text().splitlines(keepends=True)
    without = [line for line in source if not line.startswith("import envs")]
    assert len(without) == len(source) - 1
    (tmp_path / "mine.py").write_text("".join(without))
    env_id = "--env-id gymnasium_robotics:FetchReach-v4"
    flags = f"{env_id} --total-timesteps 300 --learning-starts 100 --eval-frequency 150 --run-name r"
    finished = real(tmp_path, "mine.py", *fitting(script, flags).split(), *SMALL.split(), path=TESTS)
    assert finished.returncode == 0, finished.stderr
    rows = evaluations(tmp_path / "runs" / "r")
    assert [row["global_step"] for row in rows] == ["0", "150", "300"]
    saved = checkpoint(tmp_path / "runs" / "r")
    assert saved["counters"]["updates"] == 200
    assert len(saved["parts"]["buffer"]["episodes"]) > 0


@pytest.mark.parametrize("script", DISTINCT[:1])
def test_processes_of_environments_are_forked_or_spawned(train, tmp_path, script):
    """Python forks them on Linux up to 3.13, and spawns them on macOS and Windows: the run is the same."""
    flags = "--env-id goal_envs:Wander-v0 --c-low 0 --num-envs 2 --total-timesteps 300 --learning-starts 60"
    forked = train(script, "forked", flags)
    told = (
        'import multiprocessing, sys\nmultiprocessing.set_start_method("spawn")\n'
        'if "--multiprocessing-fork" in sys.orig_argv:\n    open("spawned", "a").write(".")\n'
    )
    (tmp_path / "sitecustomize.py").write_text(told)
    words = f"{SMALL} {flags} --run-name spawned".split()
    finished = real(tmp_path, ROOT / f"{script}.py", *words, path=f"{tmp_path}{os.pathsep}{TESTS}")
    assert finished.returncode == 0, finished.stderr
    assert (tmp_path / "spawned").read_text() == ".."
    assert_same(learned(forked), learned(tmp_path / "runs" / "spawned"))


@pytest.mark.parametrize("script", DISTINCT[:1])
def test_bad_input_in_a_fresh_interpreter(tmp_path, script):
    finished = real(tmp_path, ROOT / f"{script}.py", "--env-id", "HandReach-v9")
    assert finished.returncode == 2
    assert finished.stdout == ""
    assert finished.stderr.count("\n") == 1
    assert "`v2`" in finished.stderr
    assert not list(tmp_path.iterdir())


OTHERS = [
    '--env-id PointMaze_UMaze-v3 --env-kwargs {"max_episode_steps":50} --c-low 0 --her-strategy final',
    "--env-id FetchReachDense-v4 --dense --normalize --num-envs 2",
    '--env-id ContinuousSeek5-v0 --env-kwargs {"reward_type":"dense"} --dense --num-envs 3',
    "--env-id goal_envs:Walk-v0 --c-low 0 --num-envs 3 --her-strategy episode",
    '--env-id goal_envs:Walk-v0 --env-kwargs {"dtype":"uint8"} --c-low 0 --her-strategy random --normalize',
    '--env-id goal_envs:Walk-v0 --env-kwargs {"dtype":"bool"} --c-low 0',
    '--env-id goal_envs:Walk-v0 --env-kwargs {"dtype":"float16"} --c-low 0 --her-k 0',
    '--env-id goal_envs:Endless-v0 --env-kwargs {"max_episode_steps":9} --c-low 0',
    "--env-id HandManipulateBlockRotateZ-v1 --num-envs 2 --eval-episodes 1 --eval-frequency 300",
]


@pytest.mark.parametrize("flags", OTHERS, ids=lambda flags: flags.split()[1].split(":")[-1])
@pytest.mark.parametrize("script", DISTINCT)
def test_other_environments(train, module, script, flags):
    """Any multi-goal environment: mazes that reward 1, dense rewards, early ends, any type and shape of goals."""
    if script in DISCRETE + SETS and "goal_envs" not in fitting(script, flags):
        pytest.skip("an environment of another kind")
    flags = fitting(script, flags)
    if not hasattr(module.Args, "dense"):
        flags = flags.replace("--dense", "").replace("--c-low 0", "")
    folder = train(script, "r", "--total-timesteps 300 --learning-starts 60 --eval-frequency 150", flags)
    saved = checkpoint(folder)
    assert saved["counters"]["updates"] > 30
    assert saved["counters"]["global_step"] == sum(len(episode["reward"]) for episode in episodes_of(saved))
    assert all_finite(folder)
    for row in evaluations(folder):
        assert 0 <= float(row["success_rate"]) <= 1
