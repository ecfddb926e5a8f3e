"""Trains with every evaluation made twice: by the target actor, as the scripts do, and by the actor, as the paper does.

    python benchmarks/both_actors.py --script ddpg_her --env-id ContinuousSeek20-v0

The column success_rate_actor of evaluations.csv is the actor's. All other words go to the script, whose training is
not changed. An interrupted run continues with the same words and --resume (not with the command that the script prints,
which evaluates once).
"""

from functools import partial

import wrapped


def twice(evaluate):
    """The script's evaluation, and with it the success rate of the same episodes played by the actor."""

    def evaluate_both(policy, *others) -> dict[str, float]:
        by_actor = evaluate(partial(policy, actor=policy.actor), *others)
        return evaluate(policy, *others) | dict(success_rate_actor=by_actor["success_rate"])

    return evaluate_both


def replace_evaluation(script, _) -> None:
    script.evaluate = twice(script.evaluate)


if __name__ == "__main__":
    wrapped.run(wrapped.parser(__doc__), replace_evaluation)
