"""What the STS pairs of stsb-ccbysa-subset.tsv come to with the real all-mpnet-base-v2, for each output precision: the Spearman
correlation that sentence-transformers' evaluator finds, written to sts_goldens.json.

    pip install -r requirements.txt
    python make_sts_goldens.py MODEL_DIR      # needs the real weights and no network; takes some minutes

Also checks the table's last column, `torch_cosine`, against the model's float32 embeddings.
"""

import csv
import json
import os
import pathlib
import sys
from importlib.metadata import version

os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", TRANSFORMERS_VERBOSITY="error", TQDM_DISABLE="1")

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.evaluation import EmbeddingSimilarityEvaluator
from sentence_transformers.util import pairwise_cos_sim

DATA = pathlib.Path(__file__).resolve().parent
PAIRS = DATA.parents[1] / "examples" / "data" / "stsb-ccbysa-subset.tsv"
PACKAGES = ("numpy", "scipy", "sentence-transformers", "tokenizers", "torch", "transformers")
PRECISIONS = ("float32", "int8", "uint8", "binary", "ubinary")

with open(PAIRS, encoding="utf-8", newline="") as file:
    _, *rows = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
gold, first, second = [float(row[4]) for row in rows], [row[5] for row in rows], [row[6] for row in rows]
model = SentenceTransformer(sys.argv[1], device="cpu")

cosines = pairwise_cos_sim(*(model.encode(texts, convert_to_tensor=True) for texts in (first, second)))
worst = (cosines.double() - torch.tensor([float(row[7]) for row in rows], dtype=torch.float64)).abs().max().item()
print(f"{len(rows)} cosines are within {worst:.1e} of the table's")
assert worst < 2e-6

found = {}
for precision in PRECISIONS:
    evaluator = EmbeddingSimilarityEvaluator(first, second, gold, precision=precision, write_csv=False)
    evaluator.store_metrics_in_model_card_data = lambda *_: None
    found[precision] = round(float(evaluator(model)["spearman_cosine"]), 9)
golden = {"versions": {name: version(name) for name in PACKAGES}, "pairs": len(rows), "spearman": found}
(DATA / "sts_goldens.json").write_text(json.dumps(golden, indent=2) + "\n", encoding="utf-8")
print(found)
