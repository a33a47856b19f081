"""Shapes, options and the one-line report that the peer benchmarks share."""

import argparse
import json
import statistics
import time

import torch
import transformers
from transformers import LlamaConfig, Qwen2Config, Qwen3Config

CONTEXTS, CONTEXT_LENGTH, GROUP, NEW_TOKENS = 4, 128, 8, 64
DTYPES = {'float32': torch.float32, 'bfloat16': torch.bfloat16}

# The same work on the same shapes as bench/ gives foretoken. Tied heads, as in the published models.
SHAPES = {
    'qwen3-12m': lambda: Qwen3Config(  # C 384, L 6, H 6, K 2, D 64, F 1024, V 8192: 12.6M parameters
        hidden_size=384, num_hidden_layers=6, num_attention_heads=6, num_key_value_heads=2, head_dim=64,
        intermediate_size=1024, vocab_size=8192, rope_theta=1e6, tie_word_embeddings=True),
    'smollm2-135m': lambda: LlamaConfig(  # SmolLM2-135M: C 576, L 30, H 9, K 3, F 1536, V 49152
        hidden_size=576, num_hidden_layers=30, num_attention_heads=9, num_key_value_heads=3,
        intermediate_size=1536, vocab_size=49152, rope_theta=1e5, tie_word_embeddings=True),
    'qwen2.5-0.5b': lambda: Qwen2Config(  # Qwen2.5-0.5B: C 896, L 24, H 14, K 2, F 4864, V 151936
        hidden_size=896, num_hidden_layers=24, num_attention_heads=14, num_key_value_heads=2,
        intermediate_size=4864, vocab_size=151936, rope_theta=1e6, tie_word_embeddings=True),
    'qwen2.5-1.5b': lambda: Qwen2Config(  # Qwen2.5-1.5B: C 1536, L 28, H 12, K 2, F 8960, V 151936
        hidden_size=1536, num_hidden_layers=28, num_attention_heads=12, num_key_value_heads=2,
        intermediate_size=8960, vocab_size=151936, rope_theta=1e6, tie_word_embeddings=True),
}


def options(description, dtype='bfloat16', **extra):
    """Command line of a benchmark; extra: name=(default, help), a False default makes a switch."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument('--shape', choices=SHAPES, default='qwen3-12m')
    parser.add_argument('--dtype', choices=DTYPES, default=dtype)
    parser.add_argument('--repeats', type=int, default=5, help='timed repetitions after one that is not')
    for name, (default, text) in extra.items():
        kind = {'action': 'store_true'} if default is False else {'type': type(default), 'default': default}
        parser.add_argument(f'--{name}', help=text, **kind)
    return parser.parse_args()


def random_model(shape, dtype, device='cpu'):
    """A model with random weights, never stopping by itself."""
    transformers.utils.logging.set_verbosity_error()
    torch.manual_seed(0)
    config = SHAPES[shape]()
    config.bos_token_id = config.eos_token_id = config.pad_token_id = None
    with torch.device(device):
        return transformers.AutoModelForCausalLM.from_config(config, dtype=DTYPES[dtype])


def random_ids(model, *size):
    return torch.randint(0, model.config.vocab_size, size, device=model.device)


def median_seconds(work, repeats):
    """The median time of `repeats` runs, after one that warms up."""
    def finished():
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    finished()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        finished()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


@torch.no_grad()
def rollouts(model, contexts, n):
    """(contexts * n, length + NEW_TOKENS) ids: n sampled continuations of every context, all of full length."""
    model.eval()
    ids = model.generate(contexts, attention_mask=torch.ones_like(contexts), do_sample=True, temperature=1.0, top_k=0,
                         top_p=1.0, num_return_sequences=n, max_new_tokens=NEW_TOKENS, pad_token_id=0)
    assert ids.shape == (len(contexts) * n, contexts.shape[1] + NEW_TOKENS)
    return ids


def adamw(model):
    return torch.optim.AdamW(model.parameters(), lr=1e-6, betas=(0.9, 0.999), weight_decay=0.01, fused=True)


def report(what, args, value, unit, **more):
    print(json.dumps({'what': what, 'shape': args.shape, 'dtype': args.dtype, 'value': round(value, 3), 'unit': unit,
                      'torch': torch.__version__, 'threads': torch.get_num_threads(), **more}), flush=True)
