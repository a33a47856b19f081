"""Makes the tiny models in test/fixtures/ and, with transformers as the judge, what they must answer.

    python3 -m venv venv
    venv/bin/pip install torch==2.13.0 transformers==5.18.0 safetensors numpy
    venv/bin/python scripts/make-fixtures.py [name ...]

Each folder is a checkpoint in Hugging Face layout: random weights from a fixed seed, config.json in the spelling of
transformers 5 (rope_parameters, dtype) and config_v4.json in the older one (rope_theta, rope_scaling, torch_dtype).
expected.json holds log-probs, entropies, gradients, AdamW losses and greedy tokens, computed in float64 from the
weights as stored. Each folder stays below 400 KB. Running it again with the versions above gives the same files.
"""

import json
import math
import pathlib
import shutil
import sys

import torch
import transformers
from safetensors.torch import load_file
from transformers import (AttentionInterface, AttentionMaskInterface, AutoConfig, AutoModelForCausalLM, LlamaConfig,
                          MistralConfig, Qwen2Config, Qwen3Config)
from transformers.masking_utils import eager_mask

ROOT = pathlib.Path(__file__).resolve().parent.parent / 'test' / 'fixtures'
LIMIT_BYTES = 400_000
LENGTH = 24
PROMPT = 8
GREEDY = 40
TEMPERATURES = (1.0, 0.7)
LOGIT_POSITIONS = (0, 1, 9, 23)
GRAD_ENTRIES = 24
STEPS = 4
ADAMW = {'lr': 1e-3, 'betas': (0.9, 0.95), 'eps': 1e-8, 'weight_decay': 0.1}

NOTE = (
    'Computed in float64 (eager attention, softmax and RMSNorm in float64) from the weights as stored; RoPE tables are '
    'float32 as in transformers, so compare at about 1e-5. logprobs[t][b][i] and entropies[t][b][i] belong to token i '
    'of sequence b given the tokens before it, softmax(logits / t); the first token has none (null). entropy_top16: '
    'nats over the 16 most probable tokens, renormalised, temperature 1. logits[b][j] is the row after token '
    'logit_positions[j]. loss: mean cross-entropy over all next tokens of both sequences. grads: flat indices into the '
    'row-major tensor and the values of d loss there. adamw.losses[k]: loss after k updates, adamw.grad_norms[k]: norm '
    'before update k + 1, no clipping; decoupled weight decay on matrices and embeddings, not on norms and biases. '
    'greedy: argmax continuation of the first greedy.prompt_length tokens of sequence 0, stop tokens ignored; '
    'margins[i]: logit of token i minus that of the runner-up.'
)

SHAPE = dict(num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, hidden_act='silu', bos_token_id=1,
             eos_token_id=2, attention_dropout=0.0)
SMALL = dict(SHAPE, vocab_size=272, hidden_size=48, intermediate_size=96, max_position_embeddings=256)
WIDE = dict(SHAPE, vocab_size=256, hidden_size=64, intermediate_size=96, max_position_embeddings=256)


def rope(kind='default', theta=10000.0, **extra):
    return {'rope_parameters': {'rope_type': kind, 'rope_theta': theta, **extra}}


# name -> (config, dtype on disk, shard size or None)
MODELS = {
    'llama-linear-untied': (LlamaConfig(
        **SMALL, **rope('linear', factor=4.0), rms_norm_eps=1e-5, tie_word_embeddings=False), 'float32', None),
    'llama-bias-dynamic': (LlamaConfig(
        **{**WIDE, 'max_position_embeddings': 64}, **rope('dynamic', factor=2.0), rms_norm_eps=1e-5,
        attention_bias=True, mlp_bias=True, tie_word_embeddings=True), 'float32', None),
    'llama-yarn-tied': (LlamaConfig(
        **{**WIDE, 'max_position_embeddings': 128},
        **rope('yarn', theta=50000.0, factor=4.0, original_max_position_embeddings=32, beta_fast=8.0, beta_slow=1.0),
        rms_norm_eps=1e-5, tie_word_embeddings=True), 'float32', None),
    'mistral-window-headdim': (MistralConfig(
        **{**SMALL, 'num_attention_heads': 3, 'num_key_value_heads': 1}, **rope(theta=1e6), head_dim=24,
        rms_norm_eps=1e-5, sliding_window=8, tie_word_embeddings=False), 'float32', None),
    'qwen2-upper-window': (Qwen2Config(
        **SMALL, **rope(theta=1e6), rms_norm_eps=1e-6, use_sliding_window=True, sliding_window=8, max_window_layers=1,
        tie_word_embeddings=False), 'float32', None),
    'qwen3-bias-untied': (Qwen3Config(
        **SMALL, **rope(theta=1e6), head_dim=16, rms_norm_eps=1e-6, attention_bias=True,
        tie_word_embeddings=False), 'float32', None),
    'llama-sharded-bfloat16': (LlamaConfig(
        **{**WIDE, 'vocab_size': 320}, **rope(), rms_norm_eps=1e-5, tie_word_embeddings=False), 'bfloat16', '60KB'),
    'qwen2-float16': (Qwen2Config(
        **{**WIDE, 'vocab_size': 320}, **rope(theta=1e6), rms_norm_eps=1e-6, tie_word_embeddings=True),
        'float16', None),
}


def norm_in_own_dtype(self, x):
    """RMSNorm of transformers without its rounding to float32."""
    return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon))


def attention_in_own_dtype(module, query, key, value, attention_mask, scaling, **_):
    """Eager attention of transformers without its softmax in float32."""
    groups = module.num_key_value_groups
    key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    weights = torch.softmax(query @ key.transpose(2, 3) * scaling + attention_mask, dim=-1)
    return (weights @ value).transpose(1, 2).contiguous(), weights


def logits_of(model, ids):
    return model(input_ids=ids, use_cache=False).logits


def in_double(folder):
    """The checkpoint in float64 throughout; checked to differ from plain transformers by rounding only."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64, attn_implementation='eager')
    model.eval()
    ids = token_ids(model.config.vocab_size)
    plain = logits_of(model, ids)
    model.set_attn_implementation('in_own_dtype')
    for layer in model.modules():
        if type(layer).__name__.endswith('RMSNorm'):
            layer.forward = norm_in_own_dtype.__get__(layer)
    assert (logits_of(model, ids) - plain).abs().max() < 1e-4
    return model


def token_ids(vocab_size):
    return torch.randint(3, vocab_size, (2, LENGTH), generator=torch.Generator().manual_seed(7))


def randomise(model, seed):
    """Every parameter random, norms and biases too, so that none can be forgotten without a difference."""
    g = torch.Generator().manual_seed(seed)
    for name, p in model.named_parameters():
        noise = torch.randn(p.shape, generator=g)
        scale, centre = (0.2, 1.0) if 'norm' in name else (0.1, 0.0) if name.endswith('.bias') else (0.14, 0.0)
        p.data.copy_(noise * scale + centre)


def older_spelling(config):
    """The same config as transformers 4 wrote it."""
    newer = ('rope_parameters', 'dtype', 'layer_types', 'transformers_version')
    old = {k: v for k, v in config.items() if k not in newer}
    scaling = dict(config['rope_parameters'])
    old['rope_theta'] = scaling.pop('rope_theta')
    kind = scaling.pop('rope_type')
    # the oldest files say "type", later ones "rope_type"
    old['rope_scaling'] = None if kind == 'default' else {'type' if kind == 'linear' else 'rope_type': kind, **scaling}
    old['torch_dtype'] = config['dtype']
    return old


def entropy(logprobs):
    return -(logprobs.exp() * logprobs).sum(-1)


def loss_of(model, ids):
    return torch.nn.functional.cross_entropy(logits_of(model, ids)[:, :-1].flatten(0, 1), ids[:, 1:].flatten())


def chosen_indices(name, shape, ids):
    """Spread over the tensor by a prime stride; half of an embedding's entries lie in rows that the input uses."""
    numel = math.prod(shape)
    strided = [i * 7919 % numel for i in range(GRAD_ENTRIES)]
    if 'embed_tokens' in name:
        used = [int(token) * shape[1] + i * 7 % shape[1] for i, token in enumerate(ids.flatten()[:GRAD_ENTRIES // 2])]
        strided = used + strided[:GRAD_ENTRIES // 2]
    return sorted(set(strided))


def train(model, ids):
    """Gradients at the start and the losses of a few updates."""
    decayed = [p for n, p in model.named_parameters() if p.ndim == 2]
    spared = [p for n, p in model.named_parameters() if p.ndim < 2]
    optimizer = torch.optim.AdamW([{'params': decayed}, {'params': spared, 'weight_decay': 0.0}], **ADAMW)
    grads, losses, norms = {}, [], []
    for step in range(STEPS + 1):
        optimizer.zero_grad()
        loss = loss_of(model, ids)
        loss.backward()
        losses.append(loss.item())
        norms.append(math.sqrt(sum(p.grad.pow(2).sum().item() for p in model.parameters())))
        if step == 0:
            for name, p in model.named_parameters():
                at = chosen_indices(name, p.shape, ids)
                grads[name] = {'norm': p.grad.norm().item(), 'indices': at, 'values': p.grad.flatten()[at].tolist()}
        optimizer.step()
    return grads, {**ADAMW, 'losses': losses, 'grad_norms': norms[:STEPS]}


@torch.no_grad()
def greedy(model, prompt):
    ids, margins = prompt, []
    for _ in range(GREEDY):
        best = logits_of(model, ids)[0, -1].topk(2)
        margins.append((best.values[0] - best.values[1]).item())
        ids = torch.cat([ids, best.indices[:1][None]], dim=1)
    return {'prompt_length': prompt.shape[1], 'tokens': ids[0, prompt.shape[1]:].tolist(), 'margins': margins}


def expected(model):
    ids = token_ids(model.config.vocab_size)
    with torch.no_grad():
        logits = logits_of(model, ids)
        scores, entropies = {}, {}
        for t in TEMPERATURES:
            all_logprobs = torch.log_softmax(logits[:, :-1] / t, dim=-1)
            chosen = all_logprobs.gather(2, ids[:, 1:, None])[..., 0]
            scores[str(t)] = [[None, *row] for row in chosen.tolist()]
            entropies[str(t)] = [[None, *row] for row in entropy(all_logprobs).tolist()]
        top16 = entropy(torch.log_softmax(logits[:, :-1].topk(16, dim=-1).values, dim=-1))
        rows = logits[:, list(LOGIT_POSITIONS)]
    continuation = greedy(model, ids[:1, :PROMPT])
    grads, adamw = train(model, ids)
    return {
        'note': NOTE,
        'versions': {'torch': torch.__version__.split('+')[0], 'transformers': transformers.__version__},
        'input_ids': ids.tolist(),
        'logit_positions': list(LOGIT_POSITIONS),
        'logits': rows.tolist(),
        'logprobs': scores,
        'entropies': entropies,
        'entropy_top16': [[None, *row] for row in top16.tolist()],
        'loss': adamw['losses'][0],
        'grad_total_norm': adamw['grad_norms'][0],
        'grads': grads,
        'adamw': adamw,
        'greedy': continuation,
    }


def rounded(value):
    """12 significant digits: far below every tolerance, half the size."""
    if isinstance(value, float):
        return float(f'{value:.12g}') + 0.0  # no -0.0
    if isinstance(value, dict):
        return {k: rounded(v) for k, v in value.items()}
    return [rounded(v) for v in value] if isinstance(value, (list, tuple)) else value


def json_lines(values):
    """One key a line: small files whose changes can still be read."""
    lines = [f' {json.dumps(key)}: {json.dumps(value, separators=(",", ":"))}' for key, value in values.items()]
    return '{\n' + ',\n'.join(lines) + '\n}\n'


def make(name, seed):
    """Writes one folder; false when a greedy choice is too close to call in float32 and another seed is wanted."""
    config, dtype, shard = MODELS[name]
    folder = ROOT / name
    shutil.rmtree(folder, ignore_errors=True)
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config)
    randomise(model, seed)
    model.to(getattr(torch, dtype)).save_pretrained(folder, **({'max_shard_size': shard} if shard else {}))
    (folder / 'generation_config.json').unlink()

    old = older_spelling(json.loads((folder / 'config.json').read_text()))
    (folder / 'config_v4.json').write_text(json.dumps(old, indent=2) + '\n')
    double = in_double(folder)
    check_older_spelling(folder, double)
    answer = rounded(expected(double))
    if min(answer['greedy']['margins']) < 3e-3:
        return False
    (folder / 'expected.json').write_text(json_lines(answer))
    size = sum(f.stat().st_size for f in folder.iterdir())
    assert size < LIMIT_BYTES, f'{name} has {size} bytes'
    print(f'{name:26} {size} bytes, loss {answer["loss"]:.6f}, later {answer["adamw"]["losses"][-1]:.6f}, '
          f'gradient {answer["grad_total_norm"]:.4f}, smallest greedy margin {min(answer["greedy"]["margins"]):.4f}')
    return True


@torch.no_grad()
def check_older_spelling(folder, double):
    """config_v4.json describes the same model: transformers reads it and computes the same logits."""
    values = json.loads((folder / 'config_v4.json').read_text())
    config = AutoConfig.for_model(values.pop('model_type'), **values)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float64, attn_implementation='eager')
    tensors = {}
    for shard in folder.glob('*.safetensors'):
        tensors.update(load_file(shard))
    missing, unexpected = model.load_state_dict(tensors, strict=False)
    assert not unexpected and set(missing) <= {'lm_head.weight'}
    model.tie_weights()
    ids = token_ids(config.vocab_size)
    assert (logits_of(model.eval(), ids) - logits_of(double, ids)).abs().max() < 1e-4


if __name__ == '__main__':
    transformers.utils.logging.disable_progress_bar()
    AttentionInterface.register('in_own_dtype', attention_in_own_dtype)
    AttentionMaskInterface.register('in_own_dtype', eager_mask)
    torch.set_num_threads(1)
    for index, model_name in enumerate(MODELS):
        if len(sys.argv) == 1 or model_name in sys.argv[1:]:
            assert any(make(model_name, 2000 + index + 100 * attempt) for attempt in range(20))
