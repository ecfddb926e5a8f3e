"""Trains with an α that needs no tuning: the gradient term keeps a fixed share of the value term's size.

    python benchmarks/alpha_rule.py ddpg_her_reengage --share 0.3 --env-id HandReach-v2 --seed 100 --run-name rule/x

After every update α = share · (running mean of the value loss) / (running mean of the gradient loss), over the last
thousand updates or so. All other words go to the script; `losses/alpha` in TensorBoard shows what α became. Such a run
cannot be resumed, because the means are in no checkpoint. What came of it: docs/choosing_alpha.md.
"""

import argparse
import importlib
import sys
from dataclasses import replace
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
DECAY = 0.999  # of the running means


def balanced(loss_function, share: float):
    """The script's loss of the critic with the rule's α in place of args.alpha, which is where it starts."""
    alpha, means = None, torch.zeros(2, dtype=torch.float64)

    def loss(*inputs):
        nonlocal alpha
        *inputs, args = inputs
        alpha = args.alpha if alpha is None else alpha
        total, metrics = loss_function(*inputs, replace(args, alpha=alpha))
        means.lerp_(torch.stack([metrics["value_loss"], metrics["gradient_loss"]]).double(), 1 - DECAY)
        alpha = float(share * means[0] / means[1].clamp(min=1e-9))
        return total, metrics | dict(alpha=torch.tensor(alpha))

    return loss


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("script")
    parser.add_argument("--share", type=float, required=True, help="of the gradient term, in units of the value term")
    known, flags = parser.parse_known_args()
    sys.path.insert(0, str(ROOT))
    script = importlib.import_module(known.script)
    name = "q_loss" if hasattr(script, "q_loss") else "critic_loss"
    setattr(script, name, balanced(getattr(script, name), known.share))
    sys.argv = [f"{known.script}.py", *flags]
    script.main()


if __name__ == "__main__":
    main()
