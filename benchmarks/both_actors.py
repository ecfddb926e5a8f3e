"""Trains with every evaluation made twice: by the target actor, as the scripts do, and by the actor, as the paper does.

    python benchmarks/both_actors.py --script ddpg_her --env-id ContinuousSeek20-v0

The column success_rate_actor of evaluations.csv is the actor's. All other words go to the script, whose training is
not changed.
"""

import argparse
import importlib
import sys
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def twice(evaluate):
    """The script's evaluation, and with it the success rate of the same episodes played by the actor."""

    def evaluate_both(policy, *others) -> dict[str, float]:
        by_actor = evaluate(partial(policy, actor=policy.actor), *others)
        return evaluate(policy, *others) | dict(success_rate_actor=by_actor["success_rate"])

    return evaluate_both


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--script", required=True, help="without .py")
    known, flags = parser.parse_known_args()
    sys.path.insert(0, str(ROOT))
    script = importlib.import_module(known.script)
    script.evaluate = twice(script.evaluate)
    sys.argv = [f"{known.script}.py", *flags]
    script.main()


if __name__ == "__main__":
    main()
