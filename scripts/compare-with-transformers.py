"""Loads a checkpoint with foretoken and with transformers and compares tokens and logits over texts.

    npm run setup
    python scripts/compare-with-transformers.py MODEL [--text TEXT] [--jsonl FILE --field NAME --count 3] [--tolerance 2e-5]

MODEL is a folder in Hugging Face layout: a published checkpoint, or one that foretoken has saved, such as
runs/x/checkpoints/step-200. Needs torch and transformers (bench/peers/requirements.txt). Tolerances are relative to the
largest logit of a text. Exits with 1 where one is exceeded, or where transformers' tokenizer gives other tokens.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

import numpy
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
arguments.add_argument('model')
arguments.add_argument('--text', default='Once upon a time, there was a little girl named Lily. She loved to count: 12 + 30 = 42.')
arguments.add_argument('--jsonl', help='texts instead: a field of the first records of a file')
arguments.add_argument('--field', default='text')
arguments.add_argument('--count', type=int, default=3)
arguments.add_argument('--tokens', type=int, default=128, help='at most so many of each text')
arguments.add_argument('--tolerance', type=float, default=2e-5, help='float32 in another order of sums')
given = arguments.parse_args()

# Scores texts with the library: ids, log-probs and all logits.
SCORE = '''
import { writeFileSync } from 'node:fs'
const [library, model, folder, texts, limit] = process.argv.slice(1)
const { Engine, TokenForest, Tokenizer } = await import(library)
const tokenizer = await Tokenizer.open(model)
const engine = await Engine.open(model, { dtype: 'float32' })
for (const [i, text] of JSON.parse(texts).entries()) {
  const first = tokenizer.addsBos ? [tokenizer.bosId] : []
  const ids = [...first, ...tokenizer.encode(text)].slice(0, Number(limit))
  const forest = new TokenForest()
  forest.add(null, ids)
  const { logprobs, logits } = await engine.score(forest, { logits: ids.map((_, t) => t) })
  writeFileSync(`${folder}/${i}.json`, JSON.stringify({ ids, logprobs: Array.from(logprobs.subarray(1)) }))
  writeFileSync(`${folder}/${i}.logits`, logits)
}
await engine.dispose()
'''

root = pathlib.Path(__file__).resolve().parent.parent
texts = [given.text]
if given.jsonl:
    with open(given.jsonl, encoding='utf-8') as lines:
        texts = [json.loads(line)[given.field] for line, _ in zip(lines, range(given.count))]
model = AutoModelForCausalLM.from_pretrained(given.model, dtype=torch.float32, attn_implementation='eager').eval()
tokenizer = AutoTokenizer.from_pretrained(given.model)

worst = 0.0
same_tokens = True
tokens = 0
with tempfile.TemporaryDirectory() as folder:
    library = (root / 'dist' / 'index.js').as_uri()
    subprocess.run(['node', '--input-type=module', '-e', SCORE, library, str(pathlib.Path(given.model).resolve()),
                    folder, json.dumps(texts), str(given.tokens)], check=True)
    for i, text in enumerate(texts):
        ours = json.loads(pathlib.Path(folder, f'{i}.json').read_text())
        logits = torch.from_numpy(numpy.fromfile(pathlib.Path(folder, f'{i}.logits'), numpy.float32))
        ids = ours['ids']
        tokens += len(ids)
        same_tokens &= ids == tokenizer(text)['input_ids'][:given.tokens]
        with torch.no_grad():
            theirs = model(torch.tensor([ids])).logits[0]
        scale = theirs.abs().max().item()
        difference = (logits.view_as(theirs) - theirs).abs().max().item()
        logprobs = torch.log_softmax(theirs.double(), -1)[torch.arange(len(ids) - 1), ids[1:]]
        of_logprobs = (torch.tensor(ours['logprobs']).double() - logprobs).abs().max().item()
        worst = max(worst, difference / scale, of_logprobs / scale)
print(f'{given.model}: {len(texts)} texts, {tokens} tokens, {"the same" if same_tokens else "OTHER TOKENS"}; '
      f'largest difference of logits and log-probs {worst:.1e} of the largest logit')
sys.exit(not same_tokens or worst > given.tolerance)
