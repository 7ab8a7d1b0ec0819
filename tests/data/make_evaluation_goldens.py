"""Writes evaluation.json: what sentence-transformers' evaluators and scikit-learn make of small random embeddings.

    pip install -r requirements.txt
    python make_evaluation_goldens.py   # needs no network; rewrites the file in place, takes some ten seconds

Inputs are drawn with numpy's PCG64 and are multiples of 1/64, so that their products and sums are exact in float32 and
equal scores are equal everywhere. Where a score is rounded (the cosine), the script refuses inputs of which two scores
differ by less than 1e-6 without being of equal vectors. Parts of the file, each with its inputs and what came out:

embedding_similarity, binary_classification, triplet, information_retrieval, reranking, paraphrase_mining
                of embeddings and, in `tiny`, of texts by the model in tiny/ (float64), with sentence-transformers' evaluators
embedding_similarity_precision      the first of them with each output precision, of rows of length 1
scores          Pearson, Spearman, average precision of scores with ties (scipy, scikit-learn)
v_measure, classification_metrics         of random labels (scikit-learn)
logistic_regression, k_neighbors, kmeans, mini_batch_kmeans     of embeddings in float32 (scikit-learn)
mteb            embeddings and labels to classify; make_mteb_goldens.py has what MTEB makes of them and of `mini_batch_kmeans`
"""

import json
import math
import os
import tempfile
import warnings
from importlib.metadata import version
from pathlib import Path

os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", TRANSFORMERS_VERBOSITY="error", TQDM_DISABLE="1")

import numpy as np
import torch
from scipy.stats import pearsonr, spearmanr
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer import evaluation as st
from sentence_transformers.util import cos_sim, dot_score, euclidean_sim, manhattan_sim, pairwise_cos_sim, quantize_embeddings
from sklearn import metrics
from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

warnings.filterwarnings("ignore")
DATA = Path(__file__).resolve().parent
PACKAGES = ("numpy", "scipy", "scikit-learn", "sentence-transformers", "torch", "transformers")
FUNCTIONS = ["cosine", "dot", "euclidean", "manhattan"]
MATRICES = dict(zip(FUNCTIONS, (cos_sim, dot_score, euclidean_sim, manhattan_sim)))
rng = np.random.default_rng(20261123)


class Rows:
    """Stands for a model: text "i" has the embedding rows[i]."""

    def __init__(self, rows, function="cosine"):
        self.rows, self.similarity_fn_name, self.similarity = rows, function, MATRICES[function]
        self.model_card_data = None

    def encode(self, texts, convert_to_tensor=False, **_):
        rows = self.rows[[int(text) for text in texts]]
        return torch.from_numpy(rows) if convert_to_tensor else rows

    encode_query = encode_document = encode


def embeddings(n, d, equal=()):
    """[n, d] of multiples of 1/64; `equal`: pairs of rows that are the same."""
    rows = (rng.integers(-96, 97, (n, d)) / 64).astype(np.float32)
    for a, b in equal:
        rows[b] = rows[a]
    return rows


def clear(scores, keys):
    """Whether scores that are not of the same input differ by more than rounding."""
    order = np.argsort(scores)
    near = [(a, b) for a, b in zip(order, order[1:]) if scores[b] - scores[a] < 1e-6]
    return all(keys[a] == keys[b] for a, b in near)


def keys(rows):
    return [row.tobytes() for row in rows]


def run(evaluator, model):
    """An evaluator's metrics, which it would rather keep on a model card."""
    evaluator.store_metrics_in_model_card_data = lambda *_: None
    return {name: float(value) for name, value in evaluator(model).items()}


def names(rows, offset=0):
    return [str(i + offset) for i in range(len(rows))]


def pairs(n=40, d=6):
    equal = [(0, 7), (0, 12), (3, 20), (5, 6)]
    first, second = embeddings(n, d, equal), embeddings(n, d, equal)
    scores = pairwise_cos_sim(torch.from_numpy(first), torch.from_numpy(second)).numpy()
    assert clear(scores, [a + b for a, b in zip(keys(first), keys(second))])
    return first, second, Rows(np.concatenate([first, second])), names(first), names(second, n)


def embedding_similarity():
    first, second, model, a, b = pairs()
    gold = (rng.integers(0, 11, len(first)) / 2).tolist()
    evaluator = st.EmbeddingSimilarityEvaluator(a, b, gold, similarity_fn_names=FUNCTIONS, write_csv=False)
    return dict(first=first, second=second, gold=gold, metrics=run(evaluator, model))


class QuantizedRows(Rows):
    """The same for an evaluator that asks for a precision: rows of length 1, as it normalises them first."""

    def encode(self, texts, precision=None, normalize_embeddings=False, **_):
        rows = super().encode(texts)
        assert normalize_embeddings and (np.square(rows).sum(1) == 1).all()
        return quantize_embeddings(rows, precision)


def of_length_one(n, d):
    """[n, d] of multiples of 1/64 whose squares add up to exactly 1."""
    rows = []
    while len(rows) < n:
        row = rng.integers(-28, 29, d - 1)
        rest = 64 * 64 - int(np.square(row).sum())
        if rest > 0 and math.isqrt(rest) ** 2 == rest:
            rows.append(rng.permutation([*row, math.isqrt(rest)]))
    return (np.array(rows) / 64).astype(np.float32)


def embedding_similarity_precision():
    first, second = of_length_one(40, 12), of_length_one(40, 12)
    gold, cases = (rng.integers(0, 11, len(first)) / 2).tolist(), {}
    model = QuantizedRows(np.concatenate([first, second]))
    for precision in ("float32", "int8", "uint8", "binary", "ubinary"):
        evaluator = st.EmbeddingSimilarityEvaluator(
            names(first), names(second, len(first)), gold, precision=precision, similarity_fn_names=FUNCTIONS, write_csv=False
        )
        metrics = {name: value for name, value in run(evaluator, model).items() if not name.endswith("_max")}
        if precision.endswith("binary"):
            # Many cosines of bits are equal but for their rounding, which decides their ranks.
            del metrics["spearman_cosine"]
        else:
            rows = torch.from_numpy(quantize_embeddings(model.rows, precision)).float()
            cosines = pairwise_cos_sim(rows[: len(first)], rows[len(first) :]).numpy()
            assert clear(cosines, range(len(cosines)))
        cases[precision] = metrics
    return dict(first=first, second=second, gold=gold, cases=cases)


def binary_classification():
    first, second, model, a, b = pairs()
    labels = rng.integers(0, 2, len(first)).tolist()
    evaluator = st.BinaryClassificationEvaluator(a, b, labels, similarity_fn_names=FUNCTIONS, write_csv=False)
    return dict(first=first, second=second, labels=labels, metrics=run(evaluator, model))


def triplet():
    n = 30
    rows = [embeddings(n, 5, [(0, 1)]) for _ in range(3)]
    rows[2][4] = rows[1][4]  # equally far: not counted
    texts = [names(rows[0], i * n) for i in range(3)]
    model, cases = Rows(np.concatenate(rows)), []
    for margin in (0, 0.25):
        evaluator = st.TripletEvaluator(*texts, margin=margin, similarity_fn_names=FUNCTIONS, write_csv=False)
        cases.append(dict(margin=margin, metrics=run(evaluator, model)))
    return dict(anchors=rows[0], positives=rows[1], negatives=rows[2], cases=cases)


def information_retrieval():
    corpus, queries = embeddings(22, 6, [(2, 9), (2, 17), (5, 6), (0, 21)]), embeddings(9, 6)
    for scores in cos_sim(queries, corpus).numpy():
        assert clear(scores, keys(corpus))
    relevant = [sorted(rng.choice(22, size, replace=False).tolist()) for size in (1, 2, 3, 0, 5, 12, 2, 1, 3)]
    relevant[7] = [9]  # one of three equal documents
    ids = [f"{i:02}" for i in range(22)]  # so that their order is that of the places
    cases = {}
    for function in FUNCTIONS:
        evaluator = st.InformationRetrievalEvaluator(
            {f"q{i}": str(i) for i in range(9)}, {ids[i]: str(9 + i) for i in range(22)},
            {f"q{i}": {ids[j] for j in documents} for i, documents in enumerate(relevant)},
            ndcg_at_k=[3, 10], mrr_at_k=[1, 10], map_at_k=[2, 100], write_csv=False,
        )  # fmt: skip
        found = run(evaluator, Rows(np.concatenate([queries, corpus]), function))
        cases[function] = {name.removeprefix(function + "_"): value for name, value in found.items()}
    return dict(queries=queries, corpus=corpus, relevant=relevant, cases=cases)


def reranking():
    rows, samples, places = embeddings(60, 6, [(2, 4), (22, 25), (41, 44)]), [], []
    # So that the dot product does not rank as the cosine does, for which powers of two change nothing.
    longer = rows * 2 ** (np.arange(60, dtype=np.float32) // 9 % 3)[:, None]
    begin = 0
    for positive, negative in ((2, 4), (1, 12), (3, 3), (0, 3), (2, 0), (4, 14)):
        ids = list(range(begin, begin + 1 + positive + negative))
        begin = ids[-1] + 1
        for function in MATRICES.values() if len(ids) > 1 else ():
            scores = function(longer[ids[:1]], longer[ids[1:]]).numpy()[0]
            assert clear(scores, keys(longer[ids[1:]]))
            # torch may round a product by where it stands; then the same document would not be a tie.
            assert len(set(scores.tolist())) == len(set(keys(longer[ids[1:]])))
        places.append(dict(query=ids[0], positive=ids[1 : 1 + positive], negative=ids[1 + positive :]))
        samples.append({k: [str(i) for i in v] if isinstance(v, list) else str(v) for k, v in places[-1].items()})
    assert begin <= 60
    cases = {k: run(st.RerankingEvaluator(samples, at_k=k, write_csv=False), Rows(rows)) for k in (3, 10)}
    functions = {
        name: run(st.RerankingEvaluator(samples, at_k=4, similarity_fct=function, write_csv=False), Rows(longer))
        for name, function in MATRICES.items()
    }
    return dict(rows=rows, longer=longer, samples=places, cases=cases, functions=functions)


def paraphrase_mining():
    rows = embeddings(24, 5, [(0, 1), (0, 2)])
    duplicates = [(0, 1), (2, 0), (10, 11), (4, 5), (5, 6), (20, 6), (3, 9)]
    scores = cos_sim(rows, rows).numpy()
    upper = np.triu_indices(24, 1)
    assert clear(scores[upper], ["".join(sorted(map(str, (rows[i], rows[j])))) for i, j in zip(*upper)])
    cases = []
    distinct = np.array([i for i in range(24) if i not in (1, 2)])  # ties at a cut are cut anywhere
    for which, top_k, max_pairs, closure in (
        (np.arange(24), 100, 500_000, False),
        (np.arange(24), 100, 500_000, True),
        (distinct, 3, 500_000, False),
        (distinct, 5, 20, True),
    ):
        place = {int(i): at for at, i in enumerate(which)}
        known = [(place[i], place[j]) for i, j in duplicates if i in place and j in place]
        evaluator = st.ParaphraseMiningEvaluator(
            {str(i): str(i) for i in range(len(which))}, [(str(i), str(j)) for i, j in known],
            add_transitive_closure=closure, max_pairs=max_pairs, top_k=top_k, write_csv=False,
        )  # fmt: skip
        cases.append(dict(
            rows=which.tolist(), top_k=top_k, max_pairs=max_pairs, closure=closure, duplicates=known,
            metrics=run(evaluator, Rows(rows[which])),
        ))  # fmt: skip
    return dict(rows=rows, cases=cases)


def scores():
    cases = []
    for n, values in ((5, 100), (30, 6), (50, 3), (17, 2)):
        x, y = rng.integers(0, values, n) / 8, rng.integers(0, values, n) / 4
        labels = rng.integers(0, 2, n)
        cases.append(dict(
            x=x, y=y, labels=labels, pearson=pearsonr(x, y)[0], spearman=spearmanr(x, y)[0],
            ap=metrics.average_precision_score(labels, x),
        ))  # fmt: skip
    return cases


def v_measure():
    cases = []
    for n, classes, clusters in ((40, 4, 5), (60, 10, 3), (12, 12, 4), (9, 1, 3), (9, 3, 1)):
        a, b = rng.integers(0, classes, n), rng.integers(0, clusters, n)
        h, c, v = metrics.homogeneity_completeness_v_measure(a, b)
        cases.append(dict(classes=a, clusters=b, homogeneity=h, completeness=c, v_measure=v))
    return cases


def label_metrics(y, predicted):
    """MTEB's metrics of a classification."""
    out = dict(accuracy=metrics.accuracy_score(y, predicted))
    for name in ("f1", "precision", "recall"):
        score = getattr(metrics, name + "_score")
        out[name] = score(y, predicted, average="macro")
        out[name + "_weighted"] = score(y, predicted, average="weighted")
    if len(np.unique(y)) == 2:
        out["ap"] = metrics.average_precision_score(y, predicted)
    return out


def classification_metrics():
    cases = []
    for n, occurring, predicted in ((50, 5, 7), (30, 4, 2), (40, 2, 2)):
        y, p = rng.integers(0, occurring, n), rng.integers(0, predicted, n)
        cases.append(dict(labels=y, predicted=p, metrics=label_metrics(y, p)))
    return cases


def blobs(n, d, k, spread):
    """[n, d] around k centres, and which; multiples of 1/64."""
    centres, labels = rng.normal(size=(k, d)) * 2, rng.integers(0, k, n)
    rows = centres[labels] + rng.normal(size=(n, d)) * spread
    return (np.round(rows * 64) / 64).astype(np.float32), labels


def logistic_regression():
    cases = []
    for n, d, k, options in (
        (60, 6, 4, {}), (40, 5, 2, {}), (60, 6, 4, dict(C=5.0, tol=1e-3)), (50, 8, 5, dict(max_iter=4)),
        (30, 4, 2, dict(C=0.05)),
    ):  # fmt: skip
        x, y = blobs(n + 8, d, k, 1.5)
        model = LogisticRegression(**options).fit(x[:n], y[:n])
        cases.append(dict(
            train=x[:n], labels=y[:n], test=x[n:], options=options, coef=model.coef_, intercept=model.intercept_,
            n_iter=model.n_iter_[0], proba=model.predict_proba(x[n:]), predicted=model.predict(x[n:]),
        ))  # fmt: skip
    return cases


def k_neighbors():
    x, y = blobs(70, 5, 4, 2.0)
    cases = []
    for k, metric in ((1, "euclidean"), (5, "euclidean"), (4, "cosine"), (7, "manhattan")):
        model = KNeighborsClassifier(k, metric=metric).fit(x[:50], y[:50])
        cases.append(dict(n_neighbors=k, metric=metric, predicted=model.predict(x[50:])))
    return dict(train=x[:50], labels=y[:50], test=x[50:], cases=cases)


def kmeans():
    x, _ = blobs(80, 5, 5, 0.8)
    few = np.repeat(embeddings(3, 5), 4, axis=0)
    far = x[:3] + 100  # nearest to none: centroids that must move
    cases = []
    for rows, options in (
        (x, dict(n_clusters=5, random_state=0)), (x, dict(n_clusters=9, random_state=7, n_init=4)),
        (x, dict(n_clusters=7, random_state=3, max_iter=2)), (x, dict(n_clusters=1, random_state=1)),
        (x, dict(n_clusters=5, init=np.concatenate([x[:2], far]))), (few, dict(n_clusters=3, random_state=5)),
        (x, dict(n_clusters=6, random_state=11, tol=0.05)),
    ):  # fmt: skip
        model = KMeans(**options, copy_x=True).fit(rows)
        init = options.pop("init", None)
        cases.append(dict(
            rows="few" if rows is few else "x", options=options, init=init, centroids=model.cluster_centers_,
            labels=model.labels_, inertia=model.inertia_, n_iter=model.n_iter_, predicted=model.predict(rows + 0.25),
        ))  # fmt: skip
    return dict(x=x, few=few, cases=cases)


def mini_batch_kmeans():
    x, labels = blobs(150, 5, 5, 0.6)
    cases = []
    for options in (
        dict(n_clusters=5, random_state=42, batch_size=500), dict(n_clusters=5, random_state=0, batch_size=20),
        dict(n_clusters=12, random_state=1, batch_size=24, reassignment_ratio=0.3),
        dict(n_clusters=8, random_state=2, batch_size=30, n_init=3, init_size=40, max_iter=3),
        dict(n_clusters=4, random_state=3, batch_size=25, tol=0.05, max_no_improvement=None),
    ):  # fmt: skip
        model = MiniBatchKMeans(**options).fit(x)
        cases.append(dict(
            options=options, centroids=model.cluster_centers_, labels=model.labels_, inertia=model.inertia_,
            n_iter=model.n_iter_,
        ))  # fmt: skip
    return dict(x=x, classes=labels, cases=cases)


def mteb():
    x, y = blobs(120, 6, 4, 2.0)
    return dict(train=x[:80], labels=y[:80], test=x[80:], test_labels=y[80:])


def tiny():
    """Texts through the model in tiny/, whose queries and documents have prompts."""
    model = SentenceTransformer(str(DATA / "tiny"), device="cpu", model_kwargs={"attn_implementation": "eager"}).double()
    texts = [
        "how are you", "fine, thanks", "a train left early", "the old town", "there are many people in town",
        "people of the world", "a long day at home", "the day was long", "who was there", "no one was there",
        "a new house", "the house is new",
    ]  # fmt: skip
    gold, labels = [4.0, 1.0, 3.5, 2.0, 5.0, 4.5], [0, 0, 1, 0, 1, 1]
    first, second = texts[::2], texts[1::2]
    relevant = {"0": {"1"}, "1": {"3", "5"}, "2": set(), "3": {"0"}}
    metrics = dict(
        embedding_similarity=run(st.EmbeddingSimilarityEvaluator(first, second, gold, write_csv=False), model),
        truncated=run(st.EmbeddingSimilarityEvaluator(first, second, gold, truncate_dim=8, write_csv=False), model),
        binary=run(st.EmbeddingSimilarityEvaluator(first, second, gold, precision="binary", write_csv=False), model),
        binary_classification=run(st.BinaryClassificationEvaluator(first, second, labels, write_csv=False), model),
        triplet=run(st.TripletEvaluator(first, second, texts[5::-1], write_csv=False), model),
        information_retrieval=run(
            st.InformationRetrievalEvaluator(
                dict(zip("0123", first)), dict(zip("012345", second)), relevant, write_csv=False
            ), model,
        ),
        prompted=run(
            st.InformationRetrievalEvaluator(
                dict(zip("0123", first)), dict(zip("012345", second)), relevant, query_prompt="who ",
                corpus_prompt="the old town of the world: ", truncate_dim=8, write_csv=False,
            ), model,
        ),
        reranking=run(
            st.RerankingEvaluator([
                dict(query=texts[0], positive=texts[1:3], negative=texts[3:9]),
                dict(query=texts[9], positive=texts[8:9], negative=texts[2:8]),
            ], write_csv=False), model,
        ),
        paraphrase_mining=run(
            st.ParaphraseMiningEvaluator(
                {str(i): text for i, text in enumerate(texts)}, [("4", "5"), ("6", "7"), ("8", "9"), ("10", "11")],
                write_csv=False,
            ), model,
        ),
    )  # fmt: skip
    return dict(texts=texts, gold=gold, labels=labels, metrics=metrics)


def plain(value):
    """As JSON has it; float32 by the shortest decimal that is it."""
    match value:
        case np.ndarray():
            return plain(list(value))
        case np.float32():
            return float(str(value))
        case np.generic():
            return value.item()
        case dict():
            return {str(name): plain(item) for name, item in value.items()}
        case list() | tuple():
            return [plain(item) for item in value]
    return value


@torch.inference_mode()
def main():
    torch.set_num_threads(1)
    parts = (
        embedding_similarity, binary_classification, triplet, information_retrieval, reranking, paraphrase_mining,
        scores, v_measure, classification_metrics, logistic_regression, k_neighbors, kmeans, mini_batch_kmeans, mteb,
        tiny, embedding_similarity_precision,
    )  # fmt: skip
    goldens = {"versions": {package: version(package) for package in PACKAGES}}
    os.chdir(tempfile.gettempdir())
    goldens |= {part.__name__: plain(part()) for part in parts}
    lines = [f"{json.dumps(name)}: {json.dumps(part, separators=(',', ':'))}" for name, part in goldens.items()]
    (DATA / "evaluation.json").write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
