"""PyTorch: tokens per second of forward, backward and AdamW step on a batch of sequences."""

import torch
from common import CONTEXT_LENGTH, NEW_TOKENS, adamw, median_seconds, options, random_ids, random_model, report

args = options(__doc__, length=(CONTEXT_LENGTH + NEW_TOKENS, 'tokens of a sequence'),
               autocast=(False, 'float32 weights under autocast instead of bfloat16 weights'),
               compile=(False, 'torch.compile the model'), sequences=(8, 'sequences in the batch'),
               device=('cpu', 'where to compute: cpu or cuda'))

model = random_model(args.shape, 'float32' if args.autocast else args.dtype, args.device).train()
ids = random_ids(model, args.sequences, args.length)
optimizer = adamw(model)
forward = torch.compile(model) if args.compile else model


def step():
    with torch.autocast(args.device, torch.bfloat16, enabled=args.autocast):
        forward(input_ids=ids, labels=ids, use_cache=False).loss.backward()
    optimizer.step()
    optimizer.zero_grad()


seconds = median_seconds(step, args.repeats)
report('train', args, ids.numel() / seconds, 'tokens/s', library='torch', autocast=args.autocast, compiled=args.compile,
       device=args.device, tokens=ids.numel(), parameters=sum(p.numel() for p in model.parameters()))
