"""Makes test/fixtures/corpus/: Parquet and Zstandard files as other people's tools write them, by pyarrow.

    python3 -m venv venv
    venv/bin/pip install pyarrow==26.0.1
    venv/bin/python scripts/make-corpus-fixtures.py

The rows of rows-*.parquet are those of `row()`; broken.parquet has one text that is not UTF-8 and one null.
lines.jsonl.zst has the rows 0 to 199 as JSONL, in two frames.
"""

import json
import pathlib

import pyarrow as pa
import pyarrow.parquet as pq

FOLDER = pathlib.Path(__file__).resolve().parent.parent / 'test' / 'fixtures' / 'corpus'


def row(i):
    return {
        'id': 9007199254740993 + i,
        'text': f'Document {i}: ' + 'naïve café 😀 ' * (i % 5),
        'meta': {'source': f's{i % 3}', 'score': i / 8},
    }


def frame(rows):
    lines = ''.join(json.dumps(r, ensure_ascii=False) + '\n' for r in rows)
    return pa.compress(lines.encode(), codec='zstd', asbytes=True)


FOLDER.mkdir(parents=True, exist_ok=True)
rows = [row(i) for i in range(200)]
for codec in ('snappy', 'zstd', 'gzip'):
    pq.write_table(pa.Table.from_pylist(rows), FOLDER / f'rows-{codec}.parquet', compression=codec, row_group_size=64)
texts = pa.array([b'good', b'bad \xff', None, b'also good'], pa.binary())
schema = pa.schema([('text', pa.string())])
column = pa.StringArray.from_buffers(4, texts.buffers()[1], texts.buffers()[2], texts.buffers()[0], 1)
pq.write_table(pa.Table.from_arrays([column], schema=schema), FOLDER / 'broken.parquet')
(FOLDER / 'lines.jsonl.zst').write_bytes(frame(rows[:100]) + frame(rows[100:]))
