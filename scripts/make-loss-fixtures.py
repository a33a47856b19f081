"""Makes test/fixtures/losses.json and advantages.json: every loss term and advantage on given numbers, by PyTorch.

    python3 -m venv venv
    venv/bin/pip install torch==2.13.0 trl==1.13.0 requests  # TRL imports requests without asking for it
    venv/bin/python scripts/make-loss-fixtures.py

Losses and their gradients come from autograd in float64. Where TRL's GRPOTrainer knows the same loss, its own code is
run on the same numbers and must agree; those cases name the loss_type. Exact formulas stand in the notes of the cases.
"""

import collections
import json
import math
import pathlib
import types

import torch
import trl
from trl import GRPOTrainer

ROOT = pathlib.Path(__file__).resolve().parent.parent / 'test' / 'fixtures'
LENGTHS = (7, 5, 9, 1, 6, 3, 4)
EXCLUDED = (2, 13, 14)  # tokens of the sequences that carry no loss (mask 0)
CONSTANT = 50.0
torch.set_default_dtype(torch.float64)

NOTE = (
    'logp, old, ref, advantage, entropy, weight: one value per token; sequence: index of the token\'s sequence; mask: 1 where '
    'the token carries loss. Free variables are logp and entropy: d_logprobs = d loss / d logp, d_entropies = d loss / '
    'd entropy (absent when 0 everywhere). r_t = exp(logp_t - old_t). Every case says its per-token loss l_t; then '
    'token-mean: sum mask l / sum mask; sequence-mean: mean over sequences of (sum mask l / sum mask within the '
    'sequence); constant: sum mask l / normaliser. Statistics are plain means over tokens with mask 1: clip_low = '
    '[r < 1 - low and A < 0], clip_high = [r > 1 + high and A > 0], clip_region = either of the two, '
    'clip_dual = [r > c and A < 0], kl_k1 = old - logp, kl_k3 = r - 1 - (logp - old), entropy.'
)


def tensor(values):
    return torch.tensor(values, dtype=torch.float64)


SEQUENCE = torch.repeat_interleave(torch.arange(len(LENGTHS)), torch.tensor(LENGTHS))
MASK = torch.ones(len(SEQUENCE))
MASK[list(EXCLUDED)] = 0


def make_data():
    """Two sets of numbers: ratios spread per token, and ratios spread per sequence (for gspo)."""
    g = torch.Generator().manual_seed(11)
    n = len(SEQUENCE)
    uniform = lambda low, high, size=n: low + (high - low) * torch.rand(size, generator=g)
    # below, inside left, inside right, above, far above the dual clip; paired with A > 0, A < 0, and a few A = 0
    ratios = tensor([0.45, 0.9, 1.15, 1.9, 4.5]).repeat(n)[:n] * uniform(0.93, 1.07)
    signs = tensor([1, 1, 1, 1, 1, -1, -1, -1, -1, -1]).repeat(n)[:n]
    signs[[10, 28]] = 0
    old = uniform(-4, -0.05)
    tokens = {'old': old, 'logp': old + ratios.log(), 'ref': old + uniform(-0.8, 0.8),
              'advantage': signs * uniform(0.2, 1.6), 'entropy': uniform(0.1, 3), 'weight': uniform(0, 2)}
    # a mean ratio below, inside and above for either sign, and one sequence with A = 0
    means = tensor([0.6, 0.95, 1.6, 0.5, 1.1, 1.7, 1.3]).log()
    advantages = tensor([1.2, 0.7, 0.4, -0.9, -0.5, -1.4, 0.0])
    noise = uniform(-0.3, 0.3)
    counts = torch.zeros(len(LENGTHS)).index_add_(0, SEQUENCE, MASK)
    noise = noise - (torch.zeros(len(LENGTHS)).index_add_(0, SEQUENCE, noise * MASK) / counts)[SEQUENCE]
    old = uniform(-4, -0.05)
    sequences = {'old': old, 'logp': old + means[SEQUENCE] + noise, 'ref': old + uniform(-0.8, 0.8),
                 'advantage': advantages[SEQUENCE], 'entropy': uniform(0.1, 3)}
    # as they will be read from the file
    return {name: {k: tensor(rounded(v.tolist())) for k, v in d.items()}
            for name, d in (('tokens', tokens), ('sequences', sequences))}


def reduce(per_token, normalisation, weight):
    if normalisation == 'token-mean':
        return (per_token * MASK).sum() / MASK.sum()
    if normalisation == 'weighted-mean':
        return (per_token * MASK).sum() / (weight * MASK).sum()
    if normalisation == 'constant':
        return (per_token * MASK).sum() / CONSTANT
    count = len(LENGTHS)
    sums = torch.zeros(count).index_add(0, SEQUENCE, per_token * MASK)
    return (sums / torch.zeros(count).index_add(0, SEQUENCE, MASK)).mean()


# Per-token losses. d: data with logp and entropy as free variables.

def policy(d, clip, dual=None, on_policy=False, **_):
    r = torch.exp(d['logp'] - (d['logp'].detach() if on_policy else d['old']))
    a = d['advantage']
    loss = -torch.min(r * a, r.clamp(1 - clip[0], 1 + clip[1]) * a)
    return loss if dual is None else torch.where(a < 0, torch.min(loss, -dual * a), loss)


def cispo(d, clip, **_):
    low, high = clip
    r = torch.exp(d['logp'] - d['old']).clamp(None if low is None else 1 - low, 1 + high).detach()
    return -r * d['advantage'] * d['logp']


def gspo(d, clip, **_):
    count = len(LENGTHS)
    sums = torch.zeros(count).index_add(0, SEQUENCE, (d['logp'] - d['old']) * MASK)
    s = torch.exp(sums / torch.zeros(count).index_add(0, SEQUENCE, MASK))[SEQUENCE]
    return -torch.min(s * d['advantage'], s.clamp(1 - clip[0], 1 + clip[1]) * d['advantage'])


def cross_entropy(d, weighted=False, **_):
    return -d['logp'] * (d['weight'] if weighted else 1)


def kl(d, form):
    x = d['logp'] - d['ref']
    return {'k1': x, 'k2': 0.5 * x ** 2, 'k3': torch.exp(-x) + x - 1}[form]


def none(d, **_):
    return 0 * d['logp']


LOSSES = {'policy': policy, 'cispo': cispo, 'gspo': gspo, 'cross-entropy': cross_entropy, 'none': none}
POLICY = 'l_t = -min(r_t A_t, clip(r_t, 1 - low, 1 + high) A_t)'
DUAL = POLICY + '; where A_t < 0: l_t = min(that, -c A_t)'
GSPO = ('l_t = -min(s A_t, clip(s, 1 - low, 1 + high) A_t), s = exp(mean of (logp - old) over the tokens of the '
        'sequence with mask 1); the gradient flows through s into each of these tokens')


def cases():
    """(name, note, data, settings, TRL's loss_type or None)"""
    clipped = {'loss': 'policy', 'clip': (0.2, 0.28)}
    on_policy = 'no old log-probs: r_t = exp(logp_t - stop_gradient(logp_t)) = 1; l_t = -r_t A_t'
    cispo_note = 'l_t = -stop_gradient(clip(r_t, 1 - low, 1 + high)) A_t logp_t'
    aggregations = {'token-mean': 'bnpo', 'sequence-mean': 'grpo', 'constant': 'dr_grpo'}
    for how, kind in aggregations.items():
        by = {'normalisation': how}
        yield f'policy, {how}', POLICY, 'tokens', {**clipped, **by}, kind
        yield f'policy with dual clip, {how}', DUAL, 'tokens', {**clipped, 'dual': 3.0, **by}, kind
        yield f'policy on-policy, {how}', on_policy, 'tokens', {**clipped, 'on_policy': True, **by}, kind
        yield f'policy, sequence advantages, {how}', POLICY, 'sequences', {**clipped, **by}, kind
        yield f'gspo, {how}', GSPO, 'sequences', {**clipped, 'loss': 'gspo', **by}, kind
        yield f'cispo, {how}', cispo_note, 'tokens', {**clipped, 'loss': 'cispo', **by}, None
        yield f'cross-entropy, {how}', 'l_t = -logp_t', 'tokens', {'loss': 'cross-entropy', **by}, None
    yield ('gspo, bounds of the paper', GSPO, 'sequences',
           {'loss': 'gspo', 'clip': (3e-4, 4e-4), 'normalisation': 'sequence-mean'}, 'grpo')
    yield ('cispo without lower bound', 'l_t = -stop_gradient(min(r_t, 1 + high)) A_t logp_t', 'tokens',
           {'loss': 'cispo', 'clip': (None, 4.0), 'normalisation': 'token-mean'}, 'cispo')
    yield ('cross-entropy with weights', 'l_t = -weight_t logp_t; weighted-mean: sum mask l / sum mask weight',
           'tokens', {'loss': 'cross-entropy', 'weighted': True, 'normalisation': 'weighted-mean'}, None)
    forms = {'k1': 'logp - ref', 'k2': '0.5 (logp - ref)^2', 'k3': 'exp(ref - logp) - (ref - logp) - 1'}
    for form, formula in forms.items():
        literally = f'beta ({formula}); gradient of the formula as it stands'
        for how, kind in aggregations.items():
            yield (f'policy with kl {form}, {how}', f'{POLICY} + {literally}', 'tokens',
                   {**clipped, 'normalisation': how, 'kl': form, 'beta': 0.04}, kind if form == 'k3' else None)
        yield (f'kl {form} alone', f'l_t = {literally}', 'tokens',
               {'loss': 'none', 'normalisation': 'token-mean', 'kl': form, 'beta': 0.7}, None)
    for how, kind in aggregations.items():
        # TRL always takes the bonus as a token mean, so only that one can agree
        yield (f'policy with entropy bonus, {how}', f'{POLICY} - c entropy_t (reduced like the rest)', 'tokens',
               {**clipped, 'normalisation': how, 'entropy_coefficient': 0.01}, kind if how == 'token-mean' else None)
    yield ('policy with dual clip, kl k3 and entropy bonus', f'{DUAL}; to which + beta k3 - c entropy_t', 'tokens',
           {**clipped, 'dual': 3.0, 'normalisation': 'constant', 'kl': 'k3', 'beta': 0.04, 'entropy_coefficient': 0.01},
           None)


def statistics(d, settings):
    old = d['logp'] if settings.get('on_policy') else d['old']
    log_ratio = d['logp'] - old
    r, a = log_ratio.exp(), d['advantage']
    mean = lambda x: ((x.double() * MASK).sum() / MASK.sum()).item()
    low, high = settings['clip']
    is_low = (r < 1 - low) & (a < 0) if low is not None else torch.zeros_like(a, dtype=torch.bool)
    is_high = (r > 1 + high) & (a > 0)
    result = {'clip_low': mean(is_low), 'clip_high': mean(is_high), 'clip_region': mean(is_low | is_high),
              'kl_k1': mean(-log_ratio), 'kl_k3': mean(r - 1 - log_ratio), 'entropy': mean(d['entropy'])}
    if settings.get('dual'):
        result['clip_dual'] = mean((r > settings['dual']) & (a < 0))
    return result


def solve(name, note, data_name, settings, trl_loss, data):
    d = dict(data[data_name])
    d['logp'] = d['logp'].clone().requires_grad_()
    d['entropy'] = d['entropy'].clone().requires_grad_()
    per_token = LOSSES[settings['loss']](d, **settings)
    if 'kl' in settings:
        per_token = per_token + settings['beta'] * kl(d, settings['kl'])
    if 'entropy_coefficient' in settings:
        per_token = per_token - settings['entropy_coefficient'] * d['entropy']
    loss = reduce(per_token, settings['normalisation'], d.get('weight'))
    d_logp, d_entropy = torch.autograd.grad(loss, [d['logp'], d['entropy']], allow_unused=True, materialize_grads=True)
    d = {k: v.detach() for k, v in d.items()}
    answer = {'name': name, 'note': note, 'data': data_name, 'settings': dict(settings), 'loss': loss.item(),
              'd_logprobs': d_logp.tolist()}
    if settings['normalisation'] == 'constant':
        answer['settings']['normaliser'] = CONSTANT
    if d_entropy.any():
        answer['d_entropies'] = d_entropy.tolist()
    if settings['loss'] == 'policy':
        answer['statistics'] = statistics(d, settings)
    if trl_loss:
        check_with_trl(answer, d, settings, trl_loss)
        answer['agrees_with'] = f'TRL {trl.__version__}, loss_type={trl_loss}'
    return answer


def padded(values, fill=0.0):
    return torch.nn.utils.rnn.pad_sequence(values.split(LENGTHS), batch_first=True, padding_value=fill)


def check_with_trl(answer, d, settings, loss_type):
    """Runs GRPOTrainer's own loss on the same numbers, with the model replaced by the given log-probs."""
    logp = d['logp'].clone().requires_grad_()
    entropy = d['entropy'].clone().requires_grad_()
    metrics = {'train': collections.defaultdict(list)}
    same = lambda x, **_: x
    stub = types.SimpleNamespace(
        _get_per_token_logps_and_entropies=lambda *a, **k: (padded(logp), padded(entropy), None),
        aux_loss_enabled=False, top_entropy_quantile=1.0, off_policy_mask_threshold=None, use_vllm=False,
        importance_sampling_level='sequence' if settings['loss'] == 'gspo' else 'token', loss_type=loss_type,
        beta=settings.get('beta', 0.0), epsilon_low=(settings['clip'][0]),
        # TRL's bound for cispo is the ratio itself, elsewhere its distance from 1
        epsilon_high=settings['clip'][1] + (1 if loss_type == 'cispo' else 0),
        args=types.SimpleNamespace(delta=settings.get('dual'), use_bias_correction_kl=False, steps_per_generation=1),
        model=types.SimpleNamespace(training=True), current_gradient_accumulation_steps=1,
        max_completion_length=CONSTANT / len(LENGTHS), _metrics=metrics,
        _entropy_bonus_enabled='entropy_coefficient' in settings, use_adaptive_entropy=False,
        entropy_coef=settings.get('entropy_coefficient'),
        accelerator=types.SimpleNamespace(num_processes=1, sync_gradients=False, gather=same, reduce=same))
    mask = padded(MASK)
    ids = torch.zeros(mask.shape, dtype=torch.long)
    inputs = {'prompt_ids': ids, 'prompt_mask': ids, 'completion_ids': ids, 'completion_mask': mask,
              'advantages': padded(d['advantage']), 'num_items_in_batch': MASK.sum()}
    if settings['loss'] == 'gspo':
        inputs['advantages'] = d['advantage'][torch.tensor(LENGTHS).cumsum(0) - 1]
    if not settings.get('on_policy'):
        inputs['old_per_token_logps'] = padded(d['old'])
    if 'kl' in settings:
        inputs['ref_per_token_logps'] = padded(d['ref'])
    loss = GRPOTrainer._compute_loss(stub, None, inputs)
    loss.backward()
    close = lambda ours, theirs: torch.testing.assert_close(tensor(ours), theirs.double(), rtol=1e-12, atol=1e-14)
    close(answer['loss'], loss.detach())
    close(answer['d_logprobs'], logp.grad)
    if 'd_entropies' in answer:
        close(answer['d_entropies'], entropy.grad)
    # TRL counts after its two-sided clamp, which changes no count here; gspo has its own statistics there
    if settings['loss'] == 'policy':
        for ours, theirs in (('clip_low', 'low'), ('clip_high', 'high'), ('clip_region', 'region')):
            close(answer['statistics'][ours], tensor(metrics['train'][f'clip_ratio/{theirs}_mean'][0]))


def check_branches(data):
    """Every combination of sign and place of the ratio occurs among tokens that carry loss, and none near an edge."""
    d = data['tokens']
    ratios = (d['logp'] - d['old']).exp()
    place = torch.bucketize(ratios, tensor([0.8, 1.28, 3.0]))
    found = {(int(s), int(p)) for s, p, m in zip(d['advantage'].sign(), place, MASK) if m}
    assert found >= {(s, p) for s in (-1, 1) for p in range(4)}, found
    assert all((ratios - edge).abs().min() > 1e-3 for edge in (0.8, 1.28, 3.0, 5.0))
    assert (ratios.max() > 4.5) and not ((ratios - 1).abs() < 1e-3).any()


ADVANTAGES_NOTE = (
    'groups[g].rewards and lengths (tokens of the rollout) give for each method one advantage per rollout. Within a '
    'group, mean and std with ddof = 1: grpo = (r - mean) / (std + 1e-6), equal rewards give 0; dr-grpo = r - mean; '
    'rloo = r - mean of the other rewards; opo = r - sum(length r) / sum(length) (arXiv 2505.23585); '
    'batch = (r - mean of the group) / (std of all rewards of all groups, ddof = 1, + 1e-6).'
)


def advantages():
    groups = [
        {'rewards': [1, 0, 0, 1, 0, 0, 0, 0], 'lengths': [12, 40, 33, 9, 64, 64, 21, 5]},
        {'rewards': [0, 0, 0, 0], 'lengths': [3, 8, 1, 20]},
        {'rewards': [1, 1, 1, 1], 'lengths': [7, 7, 30, 2]},
        {'rewards': [0.25, -1.5, 3.75, 0.1], 'lengths': [10, 1, 100, 17]},
        {'rewards': [1, 0], 'lengths': [5, 50]},
        {'rewards': [0.3, 0.3, 0.30000001], 'lengths': [4, 5, 6]},
    ]
    spread = torch.cat([tensor(g['rewards']) for g in groups]).std() + 1e-6
    for group in groups:
        r, n = tensor(group['rewards']), tensor(group['lengths'])
        centred = r - r.mean()
        others = tensor([torch.cat([r[:i], r[i + 1:]]).mean().item() for i in range(len(r))])
        methods = {'grpo': centred / (r.std() + 1e-6), 'dr-grpo': centred, 'rloo': r - others,
                   'opo': r - (n * r).sum() / n.sum(), 'batch': centred / spread}
        group['advantages'] = {k: v.tolist() for k, v in methods.items()}
    return {'note': ADVANTAGES_NOTE, 'versions': {'torch': torch.__version__.split('+')[0]}, 'groups': groups}


def rounded(value):
    """15 significant digits."""
    if isinstance(value, float):
        return float(f'{value:.15g}') + 0.0  # no -0.0
    if isinstance(value, dict):
        return {k: rounded(v) for k, v in value.items()}
    return [rounded(v) for v in value] if isinstance(value, (list, tuple)) else value


def write(name, values, split):
    """One line for each value, and for each member of the list `split`."""
    lines = []
    for key, value in rounded(values).items():
        if key == split:
            lines.append(f' "{key}": [\n' + ',\n'.join('  ' + json.dumps(v) for v in value) + '\n ]')
        else:
            lines.append(f' "{key}": {json.dumps(value)}')
    (ROOT / name).write_text('{\n' + ',\n'.join(lines) + '\n}\n')


def main():
    data = make_data()
    check_branches(data)
    solved = [solve(*case, data) for case in cases()]
    shared = {'sequence': SEQUENCE.tolist(), 'mask': [int(m) for m in MASK]}
    write('losses.json', {
        'note': NOTE, 'versions': {'torch': torch.__version__.split('+')[0], 'trl': trl.__version__},
        'lengths': list(LENGTHS), **shared, 'data': {k: {n: v.tolist() for n, v in d.items()} for k, d in data.items()},
        'cases': solved}, 'cases')
    write('advantages.json', advantages(), 'groups')
    agreeing = sum('agrees_with' in s for s in solved)
    print(f'{len(solved)} loss cases, {agreeing} of them checked against TRL {trl.__version__}')


if __name__ == '__main__':
    main()
