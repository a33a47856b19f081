"""Scores a text with foretoken's command line and with transformers, and prints the largest difference of a log-prob.

    python scripts/compare-with-transformers.py MODEL [--text TEXT] [--tolerance 2e-5]

MODEL is a checkpoint in Hugging Face layout: a published one, or one that foretoken has saved. Needs torch and
transformers (bench/peers/requirements.txt) and a built dist/ (npm run setup). Exits with 1 beyond the tolerance.
"""

import argparse
import json
import pathlib
import subprocess
import sys

import torch
from transformers import AutoModelForCausalLM

arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
arguments.add_argument('model')
arguments.add_argument('--text', default='Once upon a time, there was a little girl named Lily. She loved to count: 12 + 30 = 42.')
arguments.add_argument('--tolerance', type=float, default=2e-5, help='float32 in another order of sums')
given = arguments.parse_args()

root = pathlib.Path(__file__).resolve().parent.parent
command = ['node', str(root / 'dist' / 'cli' / 'main.js'), 'score', given.model, given.text, '--json', '--dtype', 'float32']
tokens = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)['perTokens']

model = AutoModelForCausalLM.from_pretrained(given.model, dtype=torch.float32, attn_implementation='eager').eval()
ids = [token['id'] for token in tokens]
first = []
if tokens[0]['logprob'] is not None:  # the command line puts the tokenizer's first token before the text
    first = [model.config.bos_token_id]
with torch.no_grad():
    logits = model(torch.tensor([first + ids])).logits[0].double()
logprobs = torch.log_softmax(logits, -1)
start = 1 - len(first)
theirs = [logprobs[len(first) + t - 1, ids[t]].item() for t in range(start, len(ids))]
ours = [tokens[t]['logprob'] for t in range(start, len(ids))]
difference = max(abs(a - b) for a, b in zip(ours, theirs, strict=True))
print(f'{given.model}: {len(ours)} log-probs, largest difference {difference:.2e}')
sys.exit(difference > given.tolerance)
