"""Trains with an α that is not tuned: the gradient term counts at most as a share of the value term.

    python benchmarks/alpha_rule.py --script ddpg_her_reengage --share 0.3 --env-id HandReach-v2 --alpha 0.067

After every update α = min(--alpha, share · value loss / gradient loss), of their running means over the last thousand
updates or so. Without the bound a critic that ignores its goal would be rewarded: its gradient loss falls, α grows, and
it ignores the goal all the more. All other words go to the script; `losses/alpha` in TensorBoard shows what α became.
An interrupted run continues with the same words and --resume (not with the command that the script prints, which knows
no rule); its running means begin again.
"""

from dataclasses import replace

import torch
import wrapped

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


def replace_loss(script, options) -> None:
    script.critic_loss = balanced(script.critic_loss, options.share)


if __name__ == "__main__":
    parser = wrapped.parser(__doc__)
    parser.add_argument("--share", type=float, required=True, help="of the gradient term, in units of the value term")
    wrapped.run(parser, replace_loss)
