"""A GRPO step in plain PyTorch: 4 contexts of 128 tokens, 8 rollouts of 64 new tokens each, then one update."""

import statistics
import time

import torch
from common import (CONTEXT_LENGTH, CONTEXTS, GROUP, NEW_TOKENS, adamw, median_seconds, options, random_ids,
                    random_model, report, rollouts)

args = options(__doc__, autocast=(False, 'float32 weights under autocast instead of bfloat16 weights'),
               microbatch=(8, 'sequences in one forward and backward'))
model = random_model(args.shape, 'float32' if args.autocast else args.dtype)
contexts = random_ids(model, CONTEXTS, CONTEXT_LENGTH)
optimizer = adamw(model)
rollout_times = []


def loss_of(ids, advantages):
    """Sum over response tokens of -ratio * advantage; the ratio is 1, its gradient that of the log-prob."""
    logits = model(input_ids=ids, use_cache=False, logits_to_keep=NEW_TOKENS + 1).logits[:, :-1].float()
    chosen = logits.gather(2, ids[:, -NEW_TOKENS:, None])[..., 0] - logits.logsumexp(-1)
    return -(torch.exp(chosen - chosen.detach()) * advantages[:, None]).sum()


def step():
    start = time.perf_counter()
    with torch.autocast('cpu', torch.bfloat16, enabled=args.autocast):
        ids = rollouts(model, contexts, GROUP)
    rollout_times.append(time.perf_counter() - start)
    rewards = (ids[:, -NEW_TOKENS:] % 2).float().mean(1).view(CONTEXTS, GROUP)
    advantages = (rewards - rewards.mean(1, keepdim=True)) / (rewards.std(1, keepdim=True) + 1e-6)
    model.train()
    for part, part_advantages in zip(ids.split(args.microbatch), advantages.flatten().split(args.microbatch)):
        with torch.autocast('cpu', torch.bfloat16, enabled=args.autocast):
            loss = loss_of(part, part_advantages) / (len(ids) * NEW_TOKENS)
        loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()


seconds = median_seconds(step, args.repeats)
generating = statistics.median(rollout_times[1:])
report('grpo-step', args, seconds, 's', library='torch', autocast=args.autocast, rollout_seconds=round(generating, 3),
       update_seconds=round(seconds - generating, 3))
