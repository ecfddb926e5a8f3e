"""Trains with an α that is not tuned: the gradient term counts at most as a share of the value term.

    python benchmarks/alpha_rule.py --script ddpg_her_reengage --share 0.3 --env-id HandReach-v2 --alpha 0.067

After every update α = min(--alpha, share · value loss / gradient loss), of their running means over the last thousand
updates or so. Without the bound a critic that ignores its goal would be rewarded: its gradient loss falls, α grows, and
it ignores the goal all the more. All other words go to the script; `losses/alpha` in TensorBoard shows what α became.
An interrupted run cannot go on: no checkpoint has the running means.
"""

import argparse
import importlib
import sys
from dataclasses import replace
from pathlib import Path

import torch

DECAY = 0.999  # of the running means


def balanced(loss_function, share: float):
    """The script's loss of the critic with the rule's α in place of args.alpha, which is where it starts."""
    alpha, means = None, torch.zeros(2, dtype=torch.float64)

    def loss(*inputs):
        nonlocal alpha
        *inputs, args = inputs
        alpha = args.alpha if alpha is None else alpha
        total, metrics = loss_function(*inputs, replace(args, alpha=alpha))
        value = metrics["value_loss"]
        means.lerp_(torch.stack([value, (total.detach() - value) / alpha]).double().cpu(), 1 - DECAY)
        alpha = min(args.alpha, float(share * means[0] / means[1]))
        return total, metrics | dict(alpha=torch.tensor(alpha))

    return loss


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--script", required=True, help="without .py")
    parser.add_argument("--share", type=float, required=True, help="of the gradient term, in units of the value term")
    options, flags = parser.parse_known_args()
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    script = importlib.import_module(options.script)
    script.critic_loss = balanced(script.critic_loss, options.share)
    sys.argv = [f"{options.script}.py", *flags]
    script.main()


if __name__ == "__main__":
    main()
