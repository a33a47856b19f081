"""transformers generate: new tokens per second, 32 sequences with a prompt of 128 tokens each, 64 new ones, sampled."""

from common import (CONTEXT_LENGTH, CONTEXTS, GROUP, NEW_TOKENS, median_seconds, options, random_ids, random_model,
                    report, rollouts)

args = options(__doc__, sequences=(CONTEXTS * GROUP, 'sequences at once'))
model = random_model(args.shape, args.dtype)
prompts = random_ids(model, args.sequences, CONTEXT_LENGTH)
seconds = median_seconds(lambda: rollouts(model, prompts, 1), args.repeats)
report('generate', args, args.sequences * NEW_TOKENS / seconds, 'tokens/s', library='transformers',
       sequences=args.sequences)
