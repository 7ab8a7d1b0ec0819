"""Writes the goldens of the heads: what Hugging Face transformers computes with the encoder of tiny/ and random heads.

    pip install -r requirements.txt
    python make_head_goldens.py           # needs no network; rewrites the files below in place

heads/<name>.safetensors   the tensors of a head alone, float32. A checkpoint is these and tiny's, which then have the
                           prefix `mpnet.`; the pooler stays out, but for multiple choice, as transformers saves it.
heads.json                 for each head: what config.json says besides tiny's, inputs, token ids, logits [rows][columns] and
                           what the pipelines answer, all in float64 with eager attention
                           and, for "cross_encoder", what sentence-transformers' class of that name answers
heads_qa.json              is written by make_qa_goldens.py: transformers 5 has no question-answering pipeline

Python counts offsets in characters.
"""

import os
import re
import shutil
import tempfile
from pathlib import Path

os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", TRANSFORMERS_VERBOSITY="error")

import numpy as np
import torch
import transformers
from make_goldens import LONG_TEXT, TINY, VERSIONS, normal, read_json, write_json
from safetensors.torch import load_file, save_file
from sentence_transformers import CrossEncoder
from transformers import AutoTokenizer, pipeline

DATA = Path(__file__).resolve().parent
HEADS = DATA / "heads"
SEED = 20202
D, V = 32, 605

TAGS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
TAG_BIASES = [2.1, 1.7, -5.1, 0.2, 0.2]
ACCENTS = "Naïve café in Zürich — 東京, Привет! ΟΔΟΣ\u00a0½ 😀 cafe\u0301 한국어"
TEXTS = ["He was in the old house.", ACCENTS, "", LONG_TEXT]
# Not with an empty second text: given by itself, the reference takes such a pair for the first text alone; in a batch, not.
PAIRS = [("how are you", "fine, thanks"), (LONG_TEXT, "A train left early."), ("", "the house")]
HEAD_CONFIGS = {
    "masked_lm": {},
    "sequence_classification": {
        "id2label": {"0": "negative", "1": "neutral", "2": "positive"},
        "problem_type": "single_label_classification",
    },
    "reranker": {"id2label": {"0": "LABEL_0"}},
    "token_classification": {"id2label": {str(i): tag for i, tag in enumerate(TAGS)}},
    "question_answering": {},
    "multiple_choice": {},
}
CLASSES = {
    "masked_lm": "MPNetForMaskedLM",
    "sequence_classification": "MPNetForSequenceClassification",
    "reranker": "MPNetForSequenceClassification",
    "token_classification": "MPNetForTokenClassification",
    "question_answering": "MPNetForQuestionAnswering",
    "multiple_choice": "MPNetForMultipleChoice",
}
IDENTITY, SIGMOID = "torch.nn.modules.linear.Identity", "torch.nn.modules.activation.Sigmoid"
# How the activation of a cross-encoder is said: by sentence-transformers before 4, before 6, and now.
SAVED_ACTIVATIONS = [
    ("reranker", {"sbert_ce_default_activation_function": IDENTITY}, None),
    ("reranker", {"sentence_transformers": {"activation_fn": IDENTITY, "version": "5.1.0"}}, None),
    ("reranker", {"sentence_transformers": {"activation_fn": "torch.nn.Identity"}}, None),
    ("reranker", {"sentence_transformers": {"activation_fn": SIGMOID}, "sbert_ce_default_activation_function": IDENTITY}, None),
    ("reranker", {}, torch.nn.Identity()),
    ("reranker", {"sentence_transformers": {"activation_fn": SIGMOID}}, torch.nn.Identity()),
    ("sequence_classification", {"sentence_transformers": {"activation_fn": IDENTITY}}, None),
    ("sequence_classification", {"sentence_transformers": {"activation_fn": "torch.nn.Sigmoid"}}, None),
    ("sequence_classification", {"problem_type": "regression"}, torch.nn.Sigmoid()),
]
QA_IDS = [[0, 230, 226, 119, 2, 2, 102, 103, 101, 98, 257, 25, 2], [0, 42, 2, 2, 98, 2]]
CHOICES = ("Most of the people in it were", ["still half asleep.", "in the river", "at home, and the doors opened again", ""])


def head_tensors(rng):
    """Large enough that labels differ from token to token."""
    d = {"classifier.dense.weight": normal(rng, (D, D), 0.25), "classifier.dense.bias": normal(rng, (D,), 0.2)}
    yield "masked_lm", {
        "lm_head.dense.weight": normal(rng, (D, D), 0.25),
        "lm_head.dense.bias": normal(rng, (D,), 0.2),
        "lm_head.layer_norm.weight": normal(rng, (D,), 0.2, mean=1.0),
        "lm_head.layer_norm.bias": normal(rng, (D,), 0.2),
        "lm_head.bias": normal(rng, (V,), 0.5),
    }
    yield "sequence_classification", d | linear(rng, "classifier.out_proj", 3)
    yield "reranker", d | linear(rng, "classifier.out_proj", 1)
    tags = linear(rng, "classifier", len(TAGS))
    # All hidden states have a part in common, by which one label would win everywhere.
    tags["classifier.bias"] = torch.tensor(TAG_BIASES)
    yield "token_classification", tags
    yield "question_answering", linear(rng, "qa_outputs", 2)
    yield "multiple_choice", linear(rng, "classifier", 1)


def linear(rng, name, outputs):
    return {f"{name}.weight": normal(rng, (outputs, D), 0.4), f"{name}.bias": normal(rng, (outputs,), 0.2)}


def assemble(directory, name, **overrides):
    """A directory as transformers saves it."""
    tensors = load_file(TINY / "model.safetensors")
    pooler = name == "multiple_choice"
    tensors = {f"mpnet.{key}": tensor for key, tensor in tensors.items() if pooler or not key.startswith("pooler.")}
    tensors |= load_file(HEADS / f"{name}.safetensors")
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    write_json(directory / "config.json", read_json(TINY / "config.json") | HEAD_CONFIGS[name] | overrides)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(TINY / file, directory / file)


def load(name, **overrides):
    with tempfile.TemporaryDirectory() as directory:
        assemble(Path(directory), name, **overrides)
        cls = getattr(transformers, CLASSES[name])
        model, info = cls.from_pretrained(directory, attn_implementation="eager", output_loading_info=True)
        assert not info["missing_keys"] and not info["unexpected_keys"], info
        tokenizer = AutoTokenizer.from_pretrained(directory)
    return model.double().eval(), tokenizer


worst = 0.0


def logits(model, ids):
    """Of one text or pair, without padding; notes how far float32 is from it."""
    global worst
    ids = torch.tensor([ids])
    want = model(ids, torch.ones_like(ids))
    got = model.float()(ids, torch.ones_like(ids))
    model.double()
    if hasattr(want, "start_logits"):
        want, got = ([torch.stack([o.start_logits, o.end_logits], -1)] for o in (want, got))
        want, got = want[0], got[0]
    else:
        want, got = want.logits, got.logits
    worst = max(worst, (want - got.double()).abs().max().item())
    return want[0]


def masked_lm():
    model, tokenizer = load("masked_lm")
    fill = pipeline("fill-mask", model=model, tokenizer=tokenizer)
    out = {"fills": []}
    for text in (
        "The <mask> was in the old house.",
        "<mask>",
        "Most of the <mask> in it were half <mask> , don't you <pad> know?",
        "naïve  <mask>ing",
    ):
        ids = tokenizer(text).input_ids
        answers = fill(text, top_k=6)
        answers = answers if isinstance(answers[0], list) else [answers]
        rows = [i for i, id in enumerate(ids) if id == tokenizer.mask_token_id]
        out["fills"].append({"text": text, "ids": ids, "masks": rows, "answers": answers})
    first = out["fills"][0]
    # Every token's row for one text would be 100 KB: the first and the mask's.
    rows = [0, first["masks"][0]]
    first["rows"] = rows
    out_logits = logits(model, first["ids"])[rows]
    return out, out_logits


def sequence_classification():
    out = {"texts": TEXTS, "pairs": PAIRS, "variants": []}
    model, tokenizer = load("sequence_classification")
    out["ids"] = [tokenizer(text).input_ids for text in TEXTS]
    out["logits"] = [logits(model, ids).tolist() for ids in out["ids"]]
    for problem_type in ("single_label_classification", "multi_label_classification", "regression", None):
        out["variants"].append(ranked("sequence_classification", problem_type=problem_type))
    out["variants"].append(ranked("reranker"))
    return out


def ranked(name, **overrides):
    """What the pipeline says of each text and pair: all labels, the best first."""
    model, tokenizer = load(name, **overrides)
    classify = pipeline("text-classification", model=model, tokenizer=tokenizer, top_k=None)
    texts = [classify([text])[0] for text in TEXTS]
    pairs = [classify({"text": a, "text_pair": b}) for a, b in PAIRS]
    return {"head": name, "config": overrides, "texts": texts, "pairs": pairs}


def cross_encoder():
    """sentence-transformers' class for the same checkpoints: a score of each pair, or a row of logits."""
    out = {}
    for name in ("reranker", "sequence_classification"):
        with tempfile.TemporaryDirectory() as directory:
            assemble(Path(directory), name, architectures=[CLASSES[name]])
            model = CrossEncoder(directory, device="cpu", model_kwargs={"attn_implementation": "eager"})
        model = model.double().eval()
        out[name] = {"predict": model.predict(PAIRS).tolist()}
        if name == "reranker":
            query, documents = PAIRS[0][0], [document for _, document in PAIRS]
            out[name] |= {"query": query, "documents": documents}
            out[name]["rank"] = [[hit["corpus_id"], float(hit["score"])] for hit in model.rank(query, documents)]
    out["saved"] = [saved_with(*case) for case in SAVED_ACTIVATIONS]
    return out


def saved_with(name, config, activation):
    """What the class answers from a directory whose config.json has the fields `config`, saved with `activation` if there is one."""
    with tempfile.TemporaryDirectory() as directory:
        source, saved = Path(directory) / "source", Path(directory) / "saved"
        source.mkdir()
        assemble(source, name, architectures=[CLASSES[name]], **config)
        kwargs = {"device": "cpu", "model_kwargs": {"attn_implementation": "eager"}}
        out = {"head": name, "config": config}
        if activation is not None:
            CrossEncoder(str(source), activation_fn=activation, **kwargs).save_pretrained(str(saved))
            # Saving takes the fields of earlier versions out of config.json.
            write_json(saved / "config.json", read_json(saved / "config.json") | config)
            out["activation_fn"] = read_json(saved / "config_sentence_transformers.json")["activation_fn"]
        model = CrossEncoder(str(source if activation is None else saved), **kwargs).double().eval()
    return out | {"predict": model.predict(PAIRS).tolist()}


def token_classification():
    model, tokenizer = load("token_classification")
    out = {"texts": TEXTS, "strategies": {}, "stride": []}
    out["logits"] = [logits(model, tokenizer(text).input_ids).tolist() for text in TEXTS[:2]]
    for strategy in ("none", "simple", "first", "max", "average"):
        classify = pipeline("token-classification", model=model, tokenizer=tokenizer, aggregation_strategy=strategy)
        out["strategies"][strategy] = [classify(text) for text in TEXTS]
    out["ignore_labels"] = {"labels": ["LOC"], "entities": pipeline(
        "token-classification", model=model, tokenizer=tokenizer, aggregation_strategy="simple", ignore_labels=["LOC"]
    )(TEXTS[0])}
    for length, stride in ((24, 6), (40, 0), (128, 8)):
        tokenizer.model_max_length = length
        for strategy in ("simple", "average"):
            classify = pipeline(
                "token-classification", model=model, tokenizer=tokenizer, aggregation_strategy=strategy, stride=stride
            )
            out["stride"].append({
                "model_max_length": length, "stride": stride, "strategy": strategy, "text": 3,
                "entities": classify(TEXTS[3]),
            })
    return plain(out)


def write_compact(path, value):
    """As `write_json`, with every object that holds no other, such as an entity, on one line."""
    write_json(path, value)
    text = path.read_text(encoding="utf-8")
    text = re.sub(r"\{\n([^{}\[\]]+)\}", lambda fields: "{" + " ".join(fields[1].split("\n")).strip() + "}", text)
    text = re.sub(r"(?<=[{,])\s{2,}(?=\")", lambda space: space[0] if "\n" in space[0] else " ", text)
    text = text.replace("{ ", "{")
    path.write_text(text, encoding="utf-8")


def plain(value):
    """numpy's numbers as Python's."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value.item() if isinstance(value, np.generic) else value


def question_answering():
    model, _ = load("question_answering")
    return {"ids": QA_IDS, "logits": [logits(model, ids).tolist() for ids in QA_IDS]}


def multiple_choice():
    model, tokenizer = load("multiple_choice")
    question, choices = CHOICES
    encoded = tokenizer([question] * len(choices), choices, return_tensors="pt", padding=True)
    batch = {key: value.unsqueeze(0) for key, value in encoded.items()}
    values = model(**batch).logits[0]
    ids = tokenizer([question] * len(choices), choices).input_ids
    return {
        "question": question, "choices": choices, "ids": ids,
        "logits": values.tolist(), "scores": values.softmax(-1).tolist(),
    }


@torch.inference_mode()
def main():
    torch.set_num_threads(1)
    HEADS.mkdir(exist_ok=True)
    for name, tensors in head_tensors(np.random.default_rng(SEED)):
        save_file(tensors, HEADS / f"{name}.safetensors", metadata={"format": "pt"})
    mlm, mlm_logits = masked_lm()
    goldens = {
        "versions": VERSIONS,
        "seed": SEED,
        "configs": HEAD_CONFIGS,
        "masked_lm": mlm,
        "sequence_classification": sequence_classification(),
        "token_classification": token_classification(),
        "question_answering": question_answering(),
        "multiple_choice": multiple_choice(),
        "cross_encoder": cross_encoder(),
    }
    write_compact(DATA / "heads.json", goldens)
    save_file({"masked_lm": mlm_logits.contiguous()}, DATA / "heads_logits.safetensors")
    print(f"float32 logits are within {worst:.1e} of float64")


if __name__ == "__main__":
    main()
