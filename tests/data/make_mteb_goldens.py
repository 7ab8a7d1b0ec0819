"""Writes mteb.json: what MTEB's own tasks make of the embeddings of evaluation.json.

    pip install -r requirements.txt mteb==2.26.24
    python make_mteb_goldens.py         # after make_evaluation_goldens.py; needs no network

classification      for each classifier the metrics of every experiment and their means: `logistic_regression` (the task's own) and
                    `k_neighbors` of `mteb` in evaluation.json, and `two_labels`, its labels modulo 2, by logistic regression
clustering          `v_measures` of sets of rows of `mini_batch_kmeans`, and their mean; `rows`: which ones

Every decision of the logistic regression is by more than 1e-2, and no neighbour at the edge is as far as the next one, so that
rounding decides nothing.
"""

import json
import os
from importlib.metadata import version
from pathlib import Path

os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TOKENIZERS_PARALLELISM="false", TQDM_DISABLE="1")

import numpy as np
from datasets import Dataset, DatasetDict
from mteb.abstasks.classification import AbsTaskClassification
from mteb.abstasks.clustering_legacy import AbsTaskClusteringLegacy
from mteb.abstasks.task_metadata import TaskMetadata
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

DATA = Path(__file__).resolve().parent
PACKAGES = ("mteb", "numpy", "scikit-learn", "scipy", "datasets")


class Model:
    """Stands for a model: text "i" has the embedding rows[i]."""

    mteb_model_meta = None

    def __init__(self, rows):
        self.rows = np.array(rows, dtype=np.float32)

    def encode(self, inputs, **_):
        return self.rows[[int(text) for batch in inputs for text in batch["text"]]]

    def similarity(self, *_):
        raise NotImplementedError

    similarity_pairwise = similarity


class ClearRegression(LogisticRegression):
    def predict(self, x):
        scores = self.decision_function(x)
        if scores.ndim == 2:
            best = np.sort(scores, axis=1)
            scores = best[:, -1] - best[:, -2]
        assert np.abs(scores).min() > 1e-2
        return super().predict(x)


class ClearNeighbors(KNeighborsClassifier):
    def predict(self, x):
        distances, _ = self.kneighbors(x, self.n_neighbors + 1)
        assert (distances[:, -1] - distances[:, -2]).min() > 1e-5
        return super().predict(x)


def metadata(kind, score):
    return TaskMetadata(
        name="Rows", description="Rows", type=kind, dataset={"path": "none", "revision": "none"}, eval_langs=["eng-Latn"],
        main_score=score, category="t2c", modalities=["text"], eval_splits=["test"],
    )  # fmt: skip


def run(task, dataset, rows):
    task.dataset, task.data_loaded = dataset, True
    return task.evaluate(Model(rows), "test", encode_kwargs={})["default"]


def classification(inputs, classifier, modulus, n):
    class Task(AbsTaskClassification):
        metadata = metadata("Classification", "accuracy")
        evaluator_model, n_experiments = classifier, n

    def split(labels, first):
        texts = [str(first + i) for i in range(len(labels))]
        return Dataset.from_dict({"text": texts, "label": [label % modulus for label in labels]})

    train, test = split(inputs["labels"], 0), split(inputs["test_labels"], len(inputs["labels"]))
    found = run(Task(), DatasetDict(train=train, test=test), inputs["train"] + inputs["test"])

    def known(scores):
        return {name: float(scores[name]) for name in METRICS if scores[name] is not None and scores[name] == scores[name]}

    return {"mean": known(found), "experiments": [known(scores) for scores in found["scores_per_experiment"]]}


METRICS = ("accuracy", "f1", "f1_weighted", "precision", "precision_weighted", "recall", "recall_weighted", "ap")


def clustering(inputs):
    class Task(AbsTaskClusteringLegacy):
        metadata = metadata("Clustering", "v_measure")

    sets = [list(range(150)), list(range(0, 150, 2)), [i for i in range(150) if inputs["classes"][i] in (1, 3)]]
    columns = {
        "sentences": [[str(i) for i in rows] for rows in sets],
        "labels": [[inputs["classes"][i] for i in rows] for rows in sets],
    }
    found = run(Task(), DatasetDict(test=Dataset.from_dict(columns)), inputs["x"])
    return {"rows": sets, "v_measures": [float(v) for v in found["v_measures"]], "mean": float(found["v_measure"])}


def main():
    inputs = json.loads((DATA / "evaluation.json").read_text(encoding="utf-8"))
    regression = ClearRegression(**AbsTaskClassification.evaluator_model.get_params())
    cases = {
        "logistic_regression": classification(inputs["mteb"], regression, 1000, 10),
        "k_neighbors": classification(inputs["mteb"], ClearNeighbors(n_neighbors=5), 1000, 5),
        "two_labels": classification(inputs["mteb"], regression, 2, 5),
    }
    goldens = {
        "versions": {package: version(package) for package in PACKAGES},
        "classification": cases,
        "clustering": clustering(inputs["mini_batch_kmeans"]),
    }
    lines = [f"{json.dumps(name)}: {json.dumps(part, separators=(',', ':'))}" for name, part in goldens.items()]
    (DATA / "mteb.json").write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
