"""Writes heads_qa.json: what the question-answering pipeline answers. transformers 5 has none any more, so this one script
runs with the last release that has:

    pip install -r requirements.txt && pip install transformers==4.57.6
    python make_qa_goldens.py              # after make_head_goldens.py

The model is that of make_head_goldens.py, in float64; that both releases give it the same logits is checked.
"""

import json
import os
import tempfile
from importlib.metadata import version
from pathlib import Path

os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", TRANSFORMERS_VERBOSITY="error")

import shutil

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, MPNetForQuestionAnswering, pipeline

DATA = Path(__file__).resolve().parent
TINY = DATA / "tiny"
PACKAGES = "numpy safetensors tokenizers torch transformers"

CONTEXT = (
    "A train left the old station early in the morning, and most of the people in it were still half asleep. "
    "Some read a newspaper, others looked out of the window at the river, which followed the line for many miles; "
    "nobody said a word until the first town came into view and the doors opened again."
)
ACCENTS = "Die Straße — naïve café in Zürich, 東京; Привет! cafe\u0301 <mask> 😀 한국어 \u00bd."
REPEATED = "the House, the house. The HOUSE and the house; the man and The Man."
CASES = [
    ("Who was asleep?", "He was in the old house.", {}),
    ("Who was asleep?", "He was in the old house.", {"top_k": 4}),
    ("Who was asleep?", "He was in the old house.", {"top_k": 4, "align_to_words": False}),
    ("where", "house", {"top_k": 3}),
    ("Where?", ACCENTS, {"top_k": 8}),
    ("Where?", ACCENTS, {"top_k": 8, "align_to_words": False}),
    ("Which house?", REPEATED, {"top_k": 6}),
    ("Which house?", REPEATED, {"top_k": 6, "max_answer_len": 3}),
    ("Which house?", REPEATED, {"top_k": 3, "max_answer_len": 1, "handle_impossible_answer": True}),
    ("Who left early in the morning?", CONTEXT, {"top_k": 5}),
    ("Who left early in the morning?", CONTEXT, {"top_k": 5, "max_seq_len": 40, "doc_stride": 10}),
    ("Who left?", CONTEXT, {"top_k": 5, "max_seq_len": 40, "doc_stride": 10, "handle_impossible_answer": True}),
    ("Who left?", CONTEXT, {"max_seq_len": 30, "doc_stride": 0, "max_answer_len": 4}),
    # So many that "no answer" would be among them, were it not the least likely window that counts.
    ("Who left?", CONTEXT, {
        "top_k": 40, "max_seq_len": 40, "doc_stride": 10, "max_answer_len": 2, "handle_impossible_answer": True,
    }),
    ("Who left?", " ".join([CONTEXT] * 3), {"top_k": 3}),
    ("What did <s> nobody say?", CONTEXT, {"top_k": 2, "max_seq_len": 64}),
]


def load():
    tensors = load_file(TINY / "model.safetensors")
    tensors = {f"mpnet.{key}": tensor for key, tensor in tensors.items() if not key.startswith("pooler.")}
    tensors |= load_file(DATA / "heads" / "question_answering.safetensors")
    with tempfile.TemporaryDirectory() as directory:
        save_file(tensors, Path(directory) / "model.safetensors", metadata={"format": "pt"})
        for file in ("config.json", "tokenizer.json", "tokenizer_config.json"):
            shutil.copy(TINY / file, directory)
        model = MPNetForQuestionAnswering.from_pretrained(directory, attn_implementation="eager")
        return model.double().eval(), AutoTokenizer.from_pretrained(directory)


@torch.inference_mode()
def main():
    torch.set_num_threads(1)
    model, tokenizer = load()
    golden = json.loads((DATA / "heads.json").read_text(encoding="utf-8"))["question_answering"]
    for ids, want in zip(golden["ids"], golden["logits"]):
        out = model(torch.tensor([ids]), torch.ones(1, len(ids), dtype=torch.long))
        got = torch.stack([out.start_logits, out.end_logits], -1)[0]
        assert torch.allclose(got, torch.tensor(want, dtype=torch.float64), rtol=0, atol=1e-10)
    answer = pipeline("question-answering", model=model, tokenizer=tokenizer)
    cases = []
    for question, context, options in CASES:
        answers = answer(question=question, context=context, **options)
        answers = answers if isinstance(answers, list) else [answers]
        cases.append({"question": question, "context": context, "options": options, "answers": answers})
    goldens = {"versions": {name: version(name) for name in PACKAGES.split()}, "cases": cases}
    text = json.dumps(goldens, ensure_ascii=False, indent=1)
    (DATA / "heads_qa.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
