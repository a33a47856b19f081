"""A GRPO step by TRL's GRPOTrainer: 4 contexts of 128 tokens, 8 rollouts of 64 new tokens each, one update."""

import statistics
import tempfile
import time

from common import CONTEXT_LENGTH, CONTEXTS, GROUP, NEW_TOKENS, options, random_ids, random_model, report
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, PrinterCallback, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

args = options(__doc__, dtype='float32',
               prompts=(','.join([str(CONTEXT_LENGTH)] * CONTEXTS), 'lengths of the prompts of a step'),
               group=(GROUP, 'rollouts of each'), tokens=(NEW_TOKENS, 'new tokens of each'),
               microbatch=(CONTEXTS * GROUP, 'sequences in one forward and backward'))
prompt_lengths = [int(length) for length in args.prompts.split(',')]
sequences = len(prompt_lengths) * args.group
model = random_model(args.shape, 'float32')  # bfloat16: autocast by the trainer


def word_tokenizer(size):
    """One word for each token id, so that a prompt of random ids is a prompt of as many words."""
    words = Tokenizer(models.WordLevel({f'w{i}': i for i in range(size)}, unk_token='w0'))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token='w0', eos_token='w1', unk_token='w0')


class StepTimer(TrainerCallback):
    def __init__(self):
        self.times = []

    def on_step_begin(self, *_, **__):
        self.start = time.perf_counter()

    def on_step_end(self, *_, **__):
        self.times.append(time.perf_counter() - self.start)


lengths = set()


def reward(completion_ids, **_):
    lengths.update(len(ids) for ids in completion_ids)
    return [sum(token % 2 for token in ids) / len(ids) for ids in completion_ids]


prompts = [' '.join(f'w{i}' for i in random_ids(model, length).tolist()) for length in prompt_lengths]
timer = StepTimer()
with tempfile.TemporaryDirectory() as folder:
    config = GRPOConfig(
        output_dir=folder, max_steps=args.repeats + 1, per_device_train_batch_size=args.microbatch,
        gradient_accumulation_steps=sequences // args.microbatch, shuffle_dataset=False, num_generations=args.group,
        max_completion_length=args.tokens, generation_kwargs={'min_new_tokens': args.tokens},
        temperature=1.0, learning_rate=1e-6, weight_decay=0.01, max_grad_norm=1.0, beta=0.0, use_cpu=True,
        bf16=args.dtype == 'bfloat16', gradient_checkpointing=False, save_strategy='no', report_to='none',
        logging_strategy='no', disable_tqdm=True)
    trainer = GRPOTrainer(model=model, reward_funcs=reward, args=config, callbacks=[timer],
                          train_dataset=Dataset.from_dict({'prompt': prompts * (args.repeats + 1)}),
                          processing_class=word_tokenizer(model.config.vocab_size))
    trainer.remove_callback(PrinterCallback)  # standard output is for the report alone
    trainer.train()
assert sequences % args.microbatch == 0 and lengths == {args.tokens} and len(timer.times) == args.repeats + 1
report('grpo-step', args, statistics.median(timer.times[1:]), 's', library='trl')
