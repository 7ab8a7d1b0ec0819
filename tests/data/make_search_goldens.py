"""Writes search.json and search.safetensors: what sentence-transformers answers to quantisation, search and mining.

    pip install -r requirements.txt faiss-cpu==1.15.1
    python make_search_goldens.py       # needs no network and no model; rewrites the two files in place

search.safetensors   inputs: `queries` [12, 20] and `corpus` [90, 20], float32, in loose groups; `ranges` [2, 20], narrower than the
                     corpus; expected bytes: quantized/<precision>/<own|ranges|calibrated> (calibrated: by the queries)
search.json          hits, pairs, communities and negatives. Scores of search and mining are computed in float64 from those
                     inputs; those of the quantised searches by faiss and the reference's rescoring.

Where the reference leaves an order to chance (equal scores at the edge of a list), the case is left out: `assert` or a filter
sees to that.
"""

import json
import platform
import sys
import types
from collections import Counter
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file
from sentence_transformers import util
from sentence_transformers.util import hard_negatives
from sentence_transformers.util.quantization import quantize_embeddings, semantic_search_faiss

DATA = Path(__file__).resolve().parent
rng = np.random.Generator(np.random.PCG64(1998))
centres = rng.standard_normal((7, 20))
member = rng.integers(0, 7, 90)
corpus = (centres[member] + 0.45 * rng.standard_normal((90, 20))).astype(np.float32)
queries = (centres[rng.integers(0, 7, 12)] + 0.8 * rng.standard_normal((12, 20))).astype(np.float32)
corpus[:, 3] = 0.25  # a constant dimension, whose range is empty
ranges = np.stack([corpus.min(0) * 0.7, np.maximum(corpus.max(0) * 0.7, corpus.min(0) * 0.7)])
tensors = {"queries": queries, "corpus": corpus, "ranges": ranges}
for precision in ("int8", "uint8", "binary", "ubinary"):
    tensors[f"quantized/{precision}/own"] = quantize_embeddings(corpus, precision)
    tensors[f"quantized/{precision}/ranges"] = quantize_embeddings(corpus, precision, ranges=ranges)
    tensors[f"quantized/{precision}/calibrated"] = quantize_embeddings(
        corpus, precision, calibration_embeddings=queries
    )
save_file({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, DATA / "search.safetensors")


def hits(lists):
    return [[[hit["corpus_id"], hit["score"]] for hit in hits] for hits in lists]


q, c = torch.from_numpy(queries).double(), torch.from_numpy(corpus).double()
functions = {"cosine": util.cos_sim, "dot": util.dot_score, "euclidean": util.euclidean_sim, "manhattan": util.manhattan_sim}
out = {"versions": {name: version(name) for name in "sentence-transformers torch numpy faiss-cpu".split()}}
out["versions"]["python"] = platform.python_version()
out["semantic_search"] = {
    name: hits(util.semantic_search(q, c, top_k=7, score_function=function, corpus_chunk_size=40))
    for name, function in functions.items()
}
out["paraphrase_mining"] = [
    {
        "similarity": name,
        "top_k": top_k,
        "max_pairs": max_pairs,
        "pairs": util.paraphrase_mining_embeddings(
            c, top_k=top_k, max_pairs=max_pairs, score_function=functions[name], query_chunk_size=32, corpus_chunk_size=17
        ),
    }
    for name, top_k, max_pairs in [("cosine", 5, 60), ("cosine", 100, 9), ("cosine", 2, 1000), ("euclidean", 4, 40), ("dot", 3, 50)]
]
out["community_detection"] = [
    {
        "threshold": threshold,
        "min_community_size": size,
        "communities": util.community_detection(c, threshold=threshold, min_community_size=size, batch_size=16),
    }
    for threshold, size in [(0.75, 5), (0.6, 3), (0.85, 2), (0.3, 10), (0.999, 2), (-1.0, 1)]
]


def no_tie(scores, edge):
    ordered = np.sort(scores)[::-1]
    return edge >= len(ordered) or ordered[edge - 1] != ordered[edge]


out["rescored"] = []
for precision, top_k, multiplier, rescore in [
    ("ubinary", 5, 18, True), ("ubinary", 3, 30, True), ("uint8", 5, 2, True), ("uint8", 4, 1, False), ("ubinary", 4, 1, False),
]:
    coded, asked = (quantize_embeddings(x, precision, ranges=ranges) for x in (corpus, queries))
    if precision == "ubinary":
        coarse = -np.unpackbits(asked[:, None] ^ coded[None], axis=-1).sum(-1).astype(int)
    else:
        coarse = asked.astype(int) @ coded.astype(int).T
    candidates = top_k * multiplier
    found, _ = semantic_search_faiss(
        queries, coded, corpus_precision=precision, top_k=top_k, ranges=ranges, rescore=rescore, rescore_multiplier=multiplier
    )
    # Without rescoring only the scores are compared, which ties do not change.
    keep = [i for i in range(len(queries)) if not rescore or no_tie(coarse[i], candidates)]
    out["rescored"].append({
        "precision": precision, "top_k": top_k, "multiplier": multiplier, "rescore": rescore,
        "hits": {str(i): hits(found)[i] for i in keep},
    })


class Table:
    """As much of a table as `mine_hard_negatives` asks the package `datasets` for."""

    def __init__(self, columns):
        self.columns, self.column_names = columns, list(columns)

    from_dict = classmethod(lambda cls, columns: cls(columns))
    __len__ = lambda self: len(self.columns[self.column_names[0]])
    __getitem__ = lambda self, name: self.columns[name]
    to_pandas = count = lambda self: self
    groupby = lambda self, name: self
    to_dict = lambda self: {"positive": Counter(self.columns["anchor"])}


sys.modules["datasets"] = types.ModuleType("datasets")
sys.modules["datasets"].Dataset = Table
hard_negatives.is_datasets_available = lambda: True


class Model:
    """Stands for a model: its texts are the numbers of rows."""

    device = "cpu"

    def encode_query(self, texts, **_):
        return torch.nn.functional.normalize(q[[int(text[1:]) for text in texts]]).numpy()

    def encode_document(self, texts, **_):
        return torch.nn.functional.normalize(c[[int(text[1:]) for text in texts]]).numpy()

    similarity = staticmethod(util.cos_sim)
    similarity_pairwise = staticmethod(util.pairwise_cos_sim)


best = np.argsort(-util.cos_sim(q, c).numpy(), axis=1)
positives = [[int(best[i, i % 4])] + ([int(best[i, 6])] if i % 3 == 0 else []) for i in range(len(queries))]
out["positives"] = positives
pairs = [(f"q{i}", f"d{row}") for i, rows in enumerate(positives) for row in rows]
out["hard_negatives"] = []
for options in [
    {},
    {"range_min": 3, "num_negatives": 4},
    {"range_max": 12, "max_score": 0.6},
    {"absolute_margin": 0.1, "num_negatives": 5},
    {"relative_margin": 0.05, "range_min": 1},
    {"min_score": 0.5, "range_max": 9, "num_negatives": 6},
    {"relative_margin": 0.2, "absolute_margin": 0.02, "max_score": 0.55, "min_score": 0.1, "range_max": 200, "num_negatives": 7},
]:
    mined = util.mine_hard_negatives(
        Table({"anchor": [a for a, _ in pairs], "positive": [p for _, p in pairs]}), Model(),
        corpus=[f"d{i}" for i in range(len(corpus))], output_format="labeled-list", output_scores=True, verbose=False, **options,
    )
    found = {}
    for row in (dict(zip(mined.columns, row)) for row in zip(*mined.columns.values())):
        documents = [int(text[1:]) for text in row["positive"][1:]]
        found[row["anchor"][1:]] = [list(hit) for hit in zip(documents, row["scores"][1:])]
    out["hard_negatives"].append({"options": options, "negatives": found})

text = json.dumps(out).replace(', "', ',\n"')
(DATA / "search.json").write_text(text + "\n", encoding="utf-8")
print(out["versions"], len(text), [len(case["hits"]) for case in out["rescored"]])
