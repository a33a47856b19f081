"""transformers generate: new tokens per second, sampled: 4 contexts of 128 tokens, 8 rollouts of 64 new ones each."""

from common import (CONTEXT_LENGTH, CONTEXTS, GROUP, NEW_TOKENS, median_seconds, options, random_ids, random_model,
                    report, rollouts)

args = options(__doc__, contexts=(CONTEXTS, 'different contexts'), group=(GROUP, 'rollouts of each'))
model = random_model(args.shape, args.dtype)
contexts = random_ids(model, args.contexts, CONTEXT_LENGTH)
seconds = median_seconds(lambda: rollouts(model, contexts, args.group), args.repeats)
report('generate', args, args.contexts * args.group * NEW_TOKENS / seconds, 'tokens/s', library='transformers',
       contexts=args.contexts, group=args.group)
