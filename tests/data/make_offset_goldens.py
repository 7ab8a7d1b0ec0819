"""Writes where the reference's tokens stand in texts with special tokens, white space of several bytes, and characters that
normalizers remove or multiply; by the tokenizer of tiny/ and by variants of it.

    pip install -r requirements.txt
    python make_offset_goldens.py        # after make_head_goldens.py; needs no network; rewrites offsets.json
    pip install transformers==4.57.6     # in an environment of its own: transformers 5 has no question-answering pipeline
    python make_offset_goldens.py        # rewrites offsets_qa.json

offsets.json
    variants    name -> fields of tokenizer.json that differ from tiny's
    texts       variant, text, ids, and for each token [start, end], or null for those put around the text
    prompts     the same, and a prompt: the tokens are those of prompt + text. Of a token that begins in the prompt and ends
                in the text, its part of the text
    entities    variant, text, and for each strategy of the token-classification pipeline [label, word, start, end, index],
                without index where tokens are joined
    windows     the same for one strategy, of texts that are cut into windows
offsets_qa.json
    variant, question, context, align_to_words, and [start, end, answer, score] of the likeliest answers

Python counts in characters. Answers that would change if logits had errors of 1e-3 are left out.
"""

import json
import os
import random
import shutil
import tempfile
from pathlib import Path

os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", TRANSFORMERS_VERBOSITY="error")

import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers.pre_tokenizers import ByteLevel
from transformers import AutoTokenizer, pipeline

DATA = Path(__file__).resolve().parent
TINY = DATA / "tiny"
SEED = 7
WORDS = "the old house people was in it many morning word town river a b don't x.y the-man unaffable zzz".split()
SPECIAL = ["<mask>", "<pad>", "</s>", "<s>", "[UNK]", "<unk>", "<mask>", "<mask><pad>", "<MASK>", "<UNK>"]
SPACES = [" ", " ", "  ", "   ", "", "", "\u00a0", "\u3000", "\u2003", "\t", "\n", "\r\n", " \u3000 ", "\u2028", "\u2003\u2003", "\u0085"]
ODD = [
    "naïve", "cafe\u0301", "ﬁne", "½", "\u0000", "\u0007", "\ufffd", "👩\u200d👩\u200d👧", "😀", "東京", "한국어", "שלום",
    "مرحبا", "\u200b", "a\u200db", "so\u00adft", "Straße", "İst", "¨", "e\u0301\u0323\u0308", "\ufeff", "𝓗ello", "ΟΔΟΣ", "–", "…",
]
ROBERTA = {"type": "RobertaProcessing", "sep": ["</s>", 2], "cls": ["<s>", 0], "trim_offsets": True, "add_prefix_space": False}
TEMPLATE = {
    "type": "TemplateProcessing",
    "single": [
        {"SpecialToken": {"id": "<s>", "type_id": 0}},
        {"Sequence": {"id": "A", "type_id": 0}},
        {"SpecialToken": {"id": "</s>", "type_id": 0}},
    ],
    "pair": [
        {"SpecialToken": {"id": "<s>", "type_id": 0}},
        {"Sequence": {"id": "A", "type_id": 0}},
        {"SpecialToken": {"id": "</s>", "type_id": 0}},
        {"SpecialToken": {"id": "</s>", "type_id": 0}},
        {"Sequence": {"id": "B", "type_id": 0}},
        {"SpecialToken": {"id": "</s>", "type_id": 0}},
    ],
    "special_tokens": {
        "<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]},
        "</s>": {"id": "</s>", "ids": [2], "tokens": ["</s>"]},
    },
}
BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
PREFIXED = BYTES | {"add_prefix_space": True}
NFKC = {"type": "Sequence", "normalizers": [{"type": "NFKC"}, {"type": "Lowercase"}]}
IDS = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "[UNK]": 8, "<mask>": 604}


def added(flags, ids=IDS):
    """The special tokens, with flags for some."""
    default = {"special": True, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return [{"id": id, "content": token} | default | flags.get(token, {}) for token, id in ids.items()]


FLAGS = added({
    "<s>": {"lstrip": True, "single_word": True},
    "<pad>": {"lstrip": True, "rstrip": True},
    "</s>": {"rstrip": True},
    "<unk>": {"normalized": True, "lstrip": True, "rstrip": True},
    "[UNK]": {"single_word": True},
    "<mask>": {"lstrip": True, "normalized": True},
})


def byte_pairs():
    """A vocabulary of all bytes and of some words, with the space before them and without."""
    merges, tokens = [], sorted(ByteLevel.alphabet())
    for word in ("the", "house", "in", "was", "people", "Ġthe", "Ġold", "Ġhouse", "Ġin", "Ġwas", "ĠĠ", "Ġ<", "æĿ", "±äº"):
        for end in range(1, len(word)):
            merge = f"{word[:end]} {word[end]}"
            if merge not in merges:
                merges.append(merge)
                tokens.append(word[: end + 1])
    tokens = list(dict.fromkeys(tokens))
    vocab = dict(IDS) | {token: 10 + i for i, token in enumerate(tokens)}
    return {"type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "vocab": vocab, "merges": merges}


def letters():
    """Each letter a token, but for the first of a word with `##` before it."""
    tokens = [mark + chr(letter) for letter in range(ord("!"), ord("~") + 1) for mark in ("", "##")]
    vocab = dict(IDS) | {token: 10 + i for i, token in enumerate(tokens)}
    return {"type": "BPE", "dropout": None, "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "vocab": vocab, "merges": []}


def pieces():
    """The likeliest pieces of words with `▁` for a space, and the special tokens among them."""
    known = ["▁", "▁the", "▁old", "▁house", "▁in", "▁was", "ing", "ed", "the", "house", *map(chr, range(ord("a"), ord("z") + 1))]
    own, rest = {id: token for token, id in UNIGRAM_IDS.items()}, iter(known)
    vocab = [[own[i], 0.0] if i in own else [next(rest), -2.0 - i / 100] for i in range(len(own) + len(known))]
    return {"type": "Unigram", "unk_id": 3, "vocab": vocab, "byte_fallback": False}


UNIGRAM_IDS = IDS | {"<mask>": 30}
BYTE_LEVEL = {"normalizer": None, "pre_tokenizer": BYTES, "decoder": BYTES, "model": byte_pairs()}
VARIANTS = {
    "tiny": {},
    "untrimmed": {"post_processor": ROBERTA | {"trim_offsets": False}},
    "prefix": {"post_processor": ROBERTA | {"add_prefix_space": True}},
    "bert": {"post_processor": {"type": "BertProcessing", "sep": ["</s>", 2], "cls": ["<s>", 0]}},
    "template": {"post_processor": TEMPLATE},
    "trimmed, then template": {"post_processor": {"type": "Sequence", "processors": [BYTES, TEMPLATE]}},
    "template, then trimmed": {"post_processor": {"type": "Sequence", "processors": [TEMPLATE, BYTES]}},
    "alone": {"post_processor": None},
    "flags": {"added_tokens": FLAGS},
    "flags untrimmed": {"added_tokens": FLAGS, "post_processor": TEMPLATE},
    "nfkc": {"normalizer": NFKC},
    "bytes": BYTE_LEVEL | {"post_processor": ROBERTA},
    "bytes flags": BYTE_LEVEL | {"post_processor": ROBERTA, "added_tokens": FLAGS},
    "bytes prefixed": BYTE_LEVEL | {"pre_tokenizer": PREFIXED, "post_processor": ROBERTA | {"add_prefix_space": True}},
    "bytes untrimmed": BYTE_LEVEL | {"post_processor": ROBERTA | {"trim_offsets": False}},
    "bytes nfkc": BYTE_LEVEL | {"normalizer": NFKC, "post_processor": {"type": "Sequence", "processors": [BYTES, TEMPLATE]}},
    "letters": {"model": letters()},
    "unigram": {
        "normalizer": None, "model": pieces(), "post_processor": ROBERTA, "added_tokens": added({"<mask>": {"lstrip": True}}, UNIGRAM_IDS),
        "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True},
        "decoder": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True},
    },
}
FIXED = ["was <mask> there", "was  <mask> there", "a       <mask>", "a\u3000<mask>\u3000\u2003<pad>"]
TEXTS, PROMPTS, ENTITIES, QUESTIONS = 14, 5, 3, 4
LENGTH = 120


def sentence(rng, count):
    text = rng.choice(["", "", *SPACES])
    for _ in range(count):
        text += rng.choice(rng.choice([WORDS, WORDS, SPECIAL, SPECIAL, ODD])) + rng.choice(SPACES)
    return text


def assemble(directory, variant, head, length=None):
    """A directory of tiny's encoder, a head, and a variant of tiny's tokenizer."""
    tensors = {f"mpnet.{key}": tensor for key, tensor in load_file(TINY / "model.safetensors").items() if not key.startswith("pooler.")}
    save_file(tensors | load_file(DATA / "heads" / f"{head}.safetensors"), directory / "model.safetensors", metadata={"format": "pt"})
    heads = json.loads((DATA / "heads.json").read_text(encoding="utf-8"))["configs"][head]
    config = json.loads((TINY / "config.json").read_text(encoding="utf-8"))
    (directory / "config.json").write_text(json.dumps(config | heads))
    # As the tests write it: the class for MPNet would make a normalizer and a post-processor of its own.
    settings = json.loads((TINY / "tokenizer_config.json").read_text(encoding="utf-8"))
    settings |= {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": length or 128}
    settings |= {"model_input_names": ["input_ids", "attention_mask"]}
    settings |= {"add_prefix_space": VARIANTS[variant].get("pre_tokenizer", {}).get("add_prefix_space", False)}
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))
    tokenizer = json.loads((TINY / "tokenizer.json").read_text(encoding="utf-8"))
    tokenizer |= VARIANTS[variant] | {"truncation": None, "padding": None}
    (directory / "tokenizer.json").write_text(json.dumps(tokenizer))
    return tokenizer


def load(variant, head, length=None):
    cls = {"token_classification": "MPNetForTokenClassification", "question_answering": "MPNetForQuestionAnswering"}[head]
    with tempfile.TemporaryDirectory() as directory:
        want = assemble(Path(directory), variant, head, length)
        model = getattr(transformers, cls).from_pretrained(directory, attn_implementation="eager")
        tokenizer = AutoTokenizer.from_pretrained(directory)
    # What was loaded is what was written; for none at all there is a post-processor that adds nothing.
    got = json.loads(tokenizer.backend_tokenizer.to_str())
    if want["post_processor"] is None and not (got["post_processor"] or {}).get("special_tokens"):
        got["post_processor"] = None
    for field in ("added_tokens", "normalizer", "pre_tokenizer", "post_processor"):
        given = sorted(want[field], key=lambda token: token["id"]) if field == "added_tokens" else want[field]
        assert got[field] == given, (variant, field, got[field], given)
    return model.double().eval(), tokenizer


def located(tokenizer, text):
    # Not `return_special_tokens_mask`: for a tokenizer that adds none it is still 0, but a text's own `<s>` is no different.
    encoding = tokenizer(text, return_offsets_mapping=True)
    (one,) = encoding.encodings
    mask = one.special_tokens_mask
    return encoding["input_ids"], [None if special else list(range) for special, range in zip(mask, encoding["offset_mapping"])]


def in_text(range, prompt):
    """Of a range of a prompt and a text its part of the text."""
    if range is None or (range[0] < prompt and range[1] <= prompt):
        return None
    return [max(range[0] - prompt, 0), range[1] - prompt]


def texts(rng):
    for variant in VARIANTS:
        _, tokenizer = load(variant, "token_classification")
        for text in [*FIXED, *(sentence(rng, 1 + n // 2) for n in range(TEXTS))]:
            ids, offsets = located(tokenizer, text)
            if len(ids) <= LENGTH:
                yield {"variant": variant, "text": text, "ids": ids, "offsets": offsets}


def prompts(rng):
    fixed = [("un", "affable people"), ("query: ", " <mask> was"), ("the ", "\u3000<mask>"), ("caf", "e\u0301 was"), ("<ma", "sk> in")]
    for variant in VARIANTS:
        _, tokenizer = load(variant, "token_classification")
        for n in range(PROMPTS):
            prompt, text = fixed[n] if n < len(fixed) and rng.random() < 0.6 else (sentence(rng, 1), sentence(rng, 4))
            ids, offsets = located(tokenizer, prompt + text)
            if prompt and len(ids) <= LENGTH:
                offsets = [in_text(range, len(prompt)) for range in offsets]
                yield {"variant": variant, "prompt": prompt, "text": text, "ids": ids, "offsets": offsets}


class Noise:
    """Adds errors to the logits of a head, as long as it lives."""

    def __init__(self, head):
        generator = torch.Generator().manual_seed(3)
        noise = lambda _, __, logits: logits + 1e-3 * torch.randn(logits.shape, generator=generator, dtype=logits.dtype)
        self.hook = head.register_forward_hook(noise)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.hook.remove()


def stable(head, ask):
    """What `ask` answers, or None if noise changes more of it than scores."""
    want, text = ask(), lambda answers: [[field for field in answer if not isinstance(field, float)] for answer in answers]
    with Noise(head):
        return want if all(text(ask()) == text(want) for _ in range(3)) else None


def entities(rng):
    for variant in VARIANTS:
        model, tokenizer = load(variant, "token_classification")
        classify = pipeline("token-classification", model=model, tokenizer=tokenizer, ignore_labels=[])
        found = 0
        while found < ENTITIES:
            text, answers = sentence(rng, 6), {}
            if len(tokenizer(text).input_ids) > LENGTH:
                continue
            for strategy in ("simple", "first", "max", "average"):
                answers[strategy] = stable(model.classifier, lambda: [
                    [e["entity_group"], e["word"], e["start"], e["end"]] for e in classify(text, aggregation_strategy=strategy)
                ])
            if None not in answers.values():
                found += 1
                yield {"variant": variant, "text": text, "entities": answers}


def windows(rng):
    for variant in ("tiny", "untrimmed", "flags", "bytes", "bytes prefixed", "unigram"):
        for length, stride in ((14, 3), (20, 0)):
            model, tokenizer = load(variant, "token_classification", length)
            classify = pipeline("token-classification", model=model, tokenizer=tokenizer, ignore_labels=[])
            while True:
                text = sentence(rng, 16)
                answer = stable(model.classifier, lambda: [
                    [e["entity_group"], e["word"], e["start"], e["end"]]
                    for e in classify(text, aggregation_strategy="simple", stride=stride)
                ])
                if answer and answer[:1] == answer[1:2]:
                    del answer[0]  # The pipeline lists the first one twice if it is empty.
                if answer is not None and len(tokenizer(text).input_ids) > length:
                    yield {"variant": variant, "text": text, "model_max_length": length, "stride": stride, "entities": answer}
                    break


def answered(answers):
    """Without those of score 0, which are not in the context."""
    answers = answers if isinstance(answers, list) else [answers]
    return [[a["start"], a["end"], a["answer"], a["score"]] for a in answers if a["score"] > 0]


def questions(rng):
    for variant in VARIANTS:
        # By that post-processor the pipeline takes the question for the context.
        if variant == "template, then trimmed":
            continue
        model, tokenizer = load(variant, "question_answering")
        answer = pipeline("question-answering", model=model, tokenizer=tokenizer)
        found = 0
        while found < QUESTIONS:
            question, context, align = "who is <mask>there?", sentence(rng, 7), found % 2 == 0
            if len(tokenizer(context).input_ids) > 90:
                continue
            answers = stable(model.qa_outputs, lambda: answered(
                answer(question=question, context=context, top_k=6, align_to_words=align)
            ))
            if answers:
                found += 1
                yield {"variant": variant, "question": question, "context": context, "align_to_words": align, "answers": answers}


def write(name, goldens):
    """Each case on a line of its own."""
    line = json.dumps  # with escapes: many of the characters are invisible
    fields = []
    for field, value in goldens.items():
        if isinstance(value, list):
            fields.append(f"{line(field)}: [\n" + ",\n".join(map(line, value)) + "\n]")
        elif field == "variants":
            fields.append(f"{line(field)}: {{\n" + ",\n".join(f"{line(k)}: {line(v)}" for k, v in value.items()) + "\n}")
        else:
            fields.append(f"{line(field)}: {line(value)}")
    (DATA / name).write_text("{\n" + ",\n".join(fields) + "\n}\n", encoding="utf-8")


@torch.inference_mode()
def main():
    torch.set_num_threads(1)
    rng = random.Random(SEED)
    versions = {module.__name__: module.__version__ for module in (transformers, torch, __import__("tokenizers"))}
    if int(transformers.__version__.split(".")[0]) < 5:
        write("offsets_qa.json", {"versions": versions, "cases": list(questions(rng))})
        return
    write("offsets.json", {
        "versions": versions, "variants": VARIANTS, "texts": list(texts(rng)), "prompts": list(prompts(rng)),
        "entities": list(entities(rng)), "windows": list(windows(rng)),
    })


if __name__ == "__main__":
    main()
