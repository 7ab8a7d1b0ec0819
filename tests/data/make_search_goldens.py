"""Writes search.json and search.safetensors: what sentence-transformers answers to quantisation, search and mining.

    pip install -r requirements.txt faiss-cpu==1.15.1 usearch==2.26.6 keybert==0.9.0
    python make_search_goldens.py       # needs no network and no model; rewrites the two files in place

search.safetensors   inputs: `queries` [12, 20] and `corpus` [90, 20], float32, in loose groups; `ranges` [2, 20], narrower than the
                     corpus; expected bytes: quantized/<precision>/<own|ranges|calibrated> (calibrated: by the queries)
search.json          hits, pairs, communities, negatives and diverse hits (of KeyBERT). Scores of search and mining are
                     computed in float64 from those inputs; those of the quantised searches by faiss, usearch and the
                     reference's rescoring.

Where the reference leaves an order to chance (equal scores at the edge of a list), the case is left out: `assert` or a filter
sees to that.
"""

import json
import platform
import random
import sys
import types
from collections import Counter
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from keybert._mmr import mmr
from safetensors.numpy import save_file
from sentence_transformers import util
from sentence_transformers.util import hard_negatives
from sentence_transformers.util.quantization import quantize_embeddings, semantic_search_faiss, semantic_search_usearch
from sklearn.metrics.pairwise import cosine_similarity

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
out = {"versions": {name: version(name) for name in "sentence-transformers torch numpy faiss-cpu usearch keybert scikit-learn".split()}}
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
    for name, top_k, max_pairs in [
        ("cosine", 5, 60), ("cosine", 100, 9), ("cosine", 2, 1000), ("euclidean", 4, 40), ("dot", 3, 50), ("manhattan", 4, 45),
    ]
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


def coarse_scores(coded, asked, precision):
    """What the first stage orders by, larger is better."""
    if precision.endswith("binary"):
        # `binary` is `ubinary` minus 128, so that the same bits differ.
        return -np.unpackbits((asked[:, None] ^ coded[None]).view(np.uint8), axis=-1).sum(-1).astype(int)
    return asked.astype(int) @ coded.astype(int).T


def settled(hits, rows_of_last_score, sign=1):
    """Equal scores by ascending row, as far as they are not for chance to choose: without those of the last score if not all rows that
    have it are there. `sign` is -1 where smaller is better."""
    ordered = sorted(hits, key=lambda hit: (-sign * hit[1], hit[0]))
    last = [row for row, score in ordered if score == ordered[-1][1]]
    return ordered if set(rows_of_last_score(last[0])) == set(last) else ordered[: -len(last)]


def same_score(scores):
    return lambda row: np.flatnonzero(scores == scores[row])


def same_code(coded):
    return lambda row: np.flatnonzero((coded == coded[row]).all(axis=1))


def scores_of(lists):
    return [[score for _, score in row] for row in lists]


LIBRARIES = {"faiss": semantic_search_faiss, "usearch": semantic_search_usearch}
out["rescored"] = []
for library, precision, top_k, multiplier, rescore in [
    ("faiss", "ubinary", 5, 18, True), ("faiss", "ubinary", 3, 30, True), ("faiss", "uint8", 5, 2, True),
    ("faiss", "uint8", 4, 1, False), ("faiss", "ubinary", 4, 1, False), ("faiss", "ubinary", 20, 1, False),
    ("usearch", "int8", 5, 2, True), ("usearch", "int8", 3, 10, True), ("usearch", "int8", 6, 1, True),
    ("usearch", "int8", 8, 1, False), ("usearch", "binary", 5, 18, True), ("usearch", "binary", 3, 3, True),
    ("usearch", "binary", 4, 1, False), ("usearch", "binary", 20, 1, False), ("usearch", "ubinary", 6, 3, True),
]:
    coded, asked = (quantize_embeddings(x, precision, ranges=ranges) for x in (corpus, queries))
    coarse = coarse_scores(coded, asked, precision)
    search, options = LIBRARIES[library], dict(corpus_precision=precision, top_k=top_k, ranges=ranges)
    found, _ = search(queries, coded, rescore=rescore, rescore_multiplier=multiplier, **options)
    found, keep = hits(found), range(len(queries))
    if rescore:
        keep = [i for i in keep if no_tie(coarse[i], top_k * multiplier)]
        assert len(keep) > 2, (library, precision, top_k)
        found = [settled(row, same_code(coded)) for row in found]
    else:
        given_codes, _ = search(asked, coded, rescore=False, **options)
        assert scores_of(hits(given_codes)) == scores_of(found)
        # faiss has dot products and distances, usearch one minus dot products and distances.
        sign = 1 if (library, precision) == ("faiss", "uint8") else -1
        found = [settled(row, same_score(coarse[i]), sign) for i, row in enumerate(found)]
    out["rescored"].append({
        "library": library, "precision": precision, "top_k": top_k, "multiplier": multiplier, "rescore": rescore,
        "hits": {str(i): found[i] for i in keep},
    })  # fmt: skip

# Candidates by bits, scored again by `int8`: the reference has both halves. The second is all rows, by their rescored scores.
coded = {precision: quantize_embeddings(corpus, precision, ranges=ranges) for precision in ("binary", "int8")}
every, _ = semantic_search_usearch(queries, coded["int8"], corpus_precision="int8", top_k=len(corpus), ranges=ranges)
every = [dict(row) for row in hits(every)]
assert len(np.unique(coded["int8"], axis=0)) == len(corpus)
out["rescored_by_int8"] = []
for top_k, multiplier in [(3, 3), (5, 18), (9, 2), (1, 5)]:
    found, _ = semantic_search_usearch(
        queries, coded["binary"], corpus_precision="binary", top_k=top_k * multiplier, rescore=False
    )
    coarse = coarse_scores(coded["binary"], quantize_embeddings(queries, "binary"), "binary")
    keep = [i for i in range(len(queries)) if no_tie(coarse[i], top_k * multiplier)]
    assert len(keep) > 2, (top_k, multiplier)
    out["rescored_by_int8"].append({
        "top_k": top_k, "multiplier": multiplier,
        "hits": {
            str(i): sorted(([row, every[i][row]] for row, _ in hits(found)[i]), key=lambda hit: -hit[1])[:top_k] for i in keep
        },
    })  # fmt: skip


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


PAIRWISE = {"cosine": util.pairwise_cos_sim, "dot": util.pairwise_dot_score, "euclidean": util.pairwise_euclidean_sim,
            "manhattan": util.pairwise_manhattan_sim}  # fmt: skip


class Model:
    """Stands for a model: its texts are the numbers of rows. For the cosine it normalises, as it is asked to."""

    device = "cpu"

    def __init__(self, name):
        self.similarity, self.similarity_pairwise = functions[name], PAIRWISE[name]
        self.finish = torch.nn.functional.normalize if name == "cosine" else torch.clone

    def encode_query(self, texts, **_):
        return self.finish(q[[int(text[1:]) for text in texts]]).numpy()

    def encode_document(self, texts, **_):
        return self.finish(c[[int(text[1:]) for text in texts]]).numpy()


best = np.argsort(-util.cos_sim(q, c).numpy(), axis=1)
positives = [[int(best[i, i % 4])] + ([int(best[i, 6])] if i % 3 == 0 else []) for i in range(len(queries))]
out["positives"] = positives
pairs = [(f"q{i}", f"d{row}") for i, rows in enumerate(positives) for row in rows]


def mine(name, **options):
    """For each query its negatives with their scores."""
    mined = util.mine_hard_negatives(
        Table({"anchor": [a for a, _ in pairs], "positive": [p for _, p in pairs]}), Model(name),
        corpus=[f"d{i}" for i in range(len(corpus))], output_format="labeled-list", output_scores=True, verbose=False, **options,
    )  # fmt: skip
    found = {}
    for row in (dict(zip(mined.columns, row)) for row in zip(*mined.columns.values())):
        documents = [int(text[1:]) for text in row["positive"][1:]]
        found[row["anchor"][1:]] = [list(hit) for hit in zip(documents, row["scores"][1:])]
    return found


out["hard_negatives"] = [
    {"similarity": name, "options": options, "negatives": mine(name, **options)}
    for name, options in [
        ("cosine", {}),
        ("cosine", {"range_min": 3, "num_negatives": 4}),
        ("cosine", {"range_max": 12, "max_score": 0.6}),
        ("cosine", {"absolute_margin": 0.1, "num_negatives": 5}),
        ("cosine", {"relative_margin": 0.05, "range_min": 1}),
        ("cosine", {"min_score": 0.5, "range_max": 9, "num_negatives": 6}),
        ("cosine", {
            "relative_margin": 0.2, "absolute_margin": 0.02, "max_score": 0.55, "min_score": 0.1, "range_max": 200,
            "num_negatives": 7,
        }),
        ("dot", {"range_min": 2, "num_negatives": 4}),
        ("dot", {"relative_margin": 0.1, "min_score": 2.0, "num_negatives": 5}),
        ("euclidean", {"absolute_margin": 0.25, "max_score": -2.5, "num_negatives": 5}),
        ("manhattan", {"relative_margin": 0.05, "range_max": 20, "num_negatives": 4}),
    ]
]  # fmt: skip

# Which candidates chance may take: those that the reference has taken after 200 draws, for each query.
out["random_negatives"] = []
for name, options in [
    ("cosine", {"range_min": 2, "range_max": 12, "num_negatives": 4}),
    ("cosine", {"range_max": 14, "num_negatives": 5, "absolute_margin": 0.1, "min_score": 0.2}),
    ("dot", {"range_min": 1, "range_max": 9, "num_negatives": 3, "max_score": 12.0}),
]:
    drawn = {}
    for seed in range(200):
        random.seed(seed)
        for query, found in mine(name, sampling_strategy="random", **options).items():
            assert [score for _, score in found] == sorted((score for _, score in found), reverse=True)
            drawn.setdefault(query, set()).update(row for row, _ in found)
    most = options["range_max"] - options.get("range_min", 0)
    window = mine(name, **options | {"num_negatives": most})
    assert drawn == {query: {row for row, _ in found} for query, found in window.items()}
    drawn = {query: sorted(rows) for query, rows in drawn.items()}
    out["random_negatives"].append({"similarity": name, "options": options, "drawn": drawn})


def diverse(query, documents, top_k, diversity):
    """KeyBERT's choice, in the order in which it chose: it returns the chosen by similarity, so it is asked for one more each time."""
    rows, chosen = [str(i) for i in range(len(documents))], []
    for n in range(1, top_k + 1):
        found = {int(row) for row, _ in mmr(query[None], documents, rows, top_n=n, diversity=diversity)}
        chosen += sorted(found - set(chosen))
    assert len(chosen) == top_k
    return chosen


out["mmr"] = []
for query, top_k, diversity in [(0, 12, 1.0), (1, 12, 0.7), (2, 12, 0.5), (3, 20, 0.25), (4, 12, 0.0), (5, 90, 0.5)]:
    inputs = queries[query].astype(np.float64), corpus.astype(np.float64)
    chosen = diverse(*inputs, top_k, diversity)
    # No choice hangs on the last digits.
    for _ in range(3):
        other = [x * (1 + 3e-6 * rng.standard_normal(x.shape)) for x in inputs]
        assert diverse(*other, top_k, diversity) == chosen, query
    scores = cosine_similarity(inputs[1], inputs[0][None])[:, 0]
    out["mmr"].append({
        "query": query, "top_k": top_k, "diversity": diversity, "hits": [[row, float(scores[row])] for row in chosen],
    })  # fmt: skip

text = json.dumps(out).replace(', "', ',\n"')
(DATA / "search.json").write_text(text + "\n", encoding="utf-8")
print(out["versions"], len(text), [len(case["hits"]) for case in out["rescored"]])
