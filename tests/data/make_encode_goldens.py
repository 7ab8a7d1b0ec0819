"""Writes what the reference answers to the options of encoding, for the model in tiny/.

    pip install -r requirements.txt
    python make_encode_goldens.py       # needs no network; rewrites the two files below in place

encode_goldens.json          what was asked, and ids, offsets and names that were answered
encode_goldens.safetensors   the embeddings that were answered, float64:
    prompts/<n>                 [D]        of the call "prompts"[n]
    outputs/<n>                 [2, k]     of the call "outputs"[n]
    precisions/<n>              [B, k]     of the call "precisions"[n], before it was made into the bytes that stand there
    poolings/<n>                [3, n·D]   of "poolings"[n]: three texts in one padded batch, by a pooling that leaves out the prompt or not
    tokens/<n>                  [T, D]     of "tokens"[n]: encode(output_value="token_embeddings")
    similarity/<name>           [3, 4]     of similarity/a [3, D] and similarity/b [4, D]
    similarity_pairwise/<name>  [3]        of similarity/a and the first rows of similarity/b
    windows/<n>                 [D]        of "windows"[n]: see `windows`
    window_tokens/<n>           [T, D]     of those of "windows" that say "tokens"
    chunks/<n>                  [C, D]     of "chunks"[n]

All is computed by sentence-transformers and transformers in float64. The reference has neither windows nor late
chunking: there, what is computed by hand from its token embeddings is a mean, written out below.
"""

import json
import tempfile
from pathlib import Path

from make_goldens import DATA, LONG_TEXT, TEXTS, TINY, VERSIONS, load_tiny, pooling_config, write_json

import torch
from safetensors.torch import save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling

TENSORS = {}
TEXT = "The weather is lovely today."
LENGTH = 48


def with_settings(**settings):
    """tiny, loaded from a directory with another config_sentence_transformers.json."""
    with tempfile.TemporaryDirectory() as directory:
        for file in TINY.rglob("*"):
            if file.is_file():
                target = Path(directory) / file.relative_to(TINY)
                target.parent.mkdir(exist_ok=True)
                target.write_bytes(file.read_bytes())
        path = Path(directory) / "config_sentence_transformers.json"
        write_json(path, json.loads(path.read_text()) | settings)
        return SentenceTransformer(directory, device="cpu", model_kwargs={"attn_implementation": "eager"}).double()


PROMPT_SETTINGS = [
    {"prompts": {"query": "query: ", "document": "passage: "}, "default_prompt_name": None},
    {"prompts": {"query": "query: ", "document": "passage: "}, "default_prompt_name": "document"},
    {"prompts": {"passage": "passage: ", "corpus": "corpus: ", "sts": "same: "}, "default_prompt_name": "sts"},
    {"prompts": {"query": None, "document": "", "sts": "same: "}, "default_prompt_name": "sts"},
    {"prompts": {}, "default_prompt_name": None},
]
PROMPT_CALLS = [
    ("encode", {}),
    ("encode_query", {}),
    ("encode_document", {}),
    ("encode", {"prompt_name": "query"}),
    ("encode", {"prompt": ""}),
    ("encode", {"prompt": "other: "}),
    ("encode_query", {"prompt_name": "document"}),
    ("encode_query", {"prompt": "other: "}),
    ("encode_document", {"prompt": ""}),
    ("encode_document", {"prompt_name": "nothing"}),
]


def prompts():
    calls = []
    for number, settings in enumerate(PROMPT_SETTINGS):
        model = with_settings(**settings)
        for method, arguments in PROMPT_CALLS:
            call = {"settings": number, "method": method, "arguments": arguments}
            try:
                embedding = getattr(model, method)(TEXT, convert_to_tensor=True, **arguments)
            except ValueError:
                call["refused"] = True
            else:
                TENSORS[f"prompts/{len(calls)}"] = embedding
            calls.append(call)
    return {"text": TEXT, "settings": PROMPT_SETTINGS, "calls": calls}


def outputs():
    texts, calls = [TEXT, LONG_TEXT], []
    for truncate_dim in (None, 8):
        model = with_settings(**({} if truncate_dim is None else {"truncate_dim": truncate_dim}))
        for arguments in ({}, {"truncate_dim": 5}, {"normalize_embeddings": True}, {"truncate_dim": 5, "normalize_embeddings": True}):
            TENSORS[f"outputs/{len(calls)}"] = model.encode(texts, convert_to_tensor=True, **arguments)
            calls.append({"model_truncate_dim": truncate_dim, "arguments": arguments})
    return {"texts": texts, "calls": calls}


def precisions():
    """encode(precision=...): the bytes, and beside them the embeddings that they were made of."""
    model, texts, calls = load_tiny(), [*TEXTS, LONG_TEXT], []
    shortened = {"truncate_dim": 5, "normalize_embeddings": True}
    for method in ("encode", "encode_query"):
        for arguments in ({}, shortened):
            encode, n = getattr(model, method), len(calls)
            TENSORS[f"precisions/{n}"] = encode(texts, convert_to_tensor=True, **arguments)
            names = ("int8", "uint8", "binary", "ubinary")
            rows = {name: encode(texts, precision=name, **arguments).tolist() for name in names}
            calls.append({"method": method, "arguments": arguments, "rows": rows})
    try:
        model.encode(TEXT, precision="int8")
    except ValueError:
        return {"texts": texts, "calls": calls}
    raise AssertionError("ranges were taken from a single embedding")


MODES = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")


def load_pooling(config):
    with tempfile.TemporaryDirectory() as directory:
        write_json(Path(directory) / "config.json", config)
        return Pooling.load(directory)


def poolings():
    transformer = load_tiny()[0]
    texts, prompt, calls = ["", TEXT, LONG_TEXT], "a long prompt, of many words: ", []
    for modes in [[mode] for mode in MODES] + [["lasttoken", "cls", "mean"], list(MODES)]:
        for include_prompt in (True, False):
            config = {"embedding_dimension": 32, "pooling_mode": modes, "include_prompt": include_prompt}
            model = SentenceTransformer(modules=[transformer, load_pooling(config)], device="cpu").double()
            TENSORS[f"poolings/{len(calls)}"] = model.encode(texts, prompt=prompt, convert_to_tensor=True)
            calls.append(config)
    return {"texts": texts, "prompt": prompt, "configs": calls}


def tokens():
    model, calls = load_tiny(), []
    for text in (TEXTS[3], TEXTS[4], "", LONG_TEXT):
        for prompt in ("", "query: "):
            n, tokenizer = len(calls), model.tokenizer
            (embeddings,) = model.encode([text], prompt=prompt, output_value="token_embeddings")
            encoded = tokenizer(prompt + text, truncation=True, max_length=LENGTH, return_offsets_mapping=True)
            special = tokenizer(prompt + text, truncation=True, max_length=LENGTH, return_special_tokens_mask=True)
            offsets = [
                None if i in (0, len(embeddings) - 1) or start < len(prompt) else [start - len(prompt), end - len(prompt)]
                for i, (start, end) in enumerate(encoded["offset_mapping"])
            ]
            assert special["special_tokens_mask"][0] == special["special_tokens_mask"][-1] == 1
            TENSORS[f"tokens/{n}"] = embeddings
            calls.append({"text": text, "prompt": prompt, "ids": encoded["input_ids"], "char_offsets": offsets})
    return calls


def similarity():
    generator = torch.Generator().manual_seed(7)
    a, b = (torch.randn(rows, 32, generator=generator, dtype=torch.float64).float().double() for rows in (3, 4))
    TENSORS["similarity/a"], TENSORS["similarity/b"] = a, b
    model = load_tiny()
    names = ("cosine", "dot", "euclidean", "manhattan")
    for name in names:
        model.similarity_fn_name = name
        TENSORS[f"similarity/{name}"] = model.similarity(a, b)
        TENSORS[f"similarity_pairwise/{name}"] = model.similarity_pairwise(a, b[:3])
    return list(names)


def split_in_windows(model, text, prompt, stride):
    """The ids of each window: by the tokenizer itself where there is no prompt, which it cannot repeat."""
    tokenizer = model.tokenizer
    encoded = tokenizer(
        prompt + text, truncation=True, max_length=LENGTH, stride=stride, return_overflowing_tokens=True
    )
    if not prompt:
        return encoded["input_ids"]
    ids = tokenizer(prompt + text, add_special_tokens=False)["input_ids"]
    before = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    assert ids[: len(before)] == before
    rest, room = ids[len(before) :], LENGTH - 2 - len(before)
    parts, start = [], 0
    while True:
        parts.append(rest[start : start + room])
        if start + room >= len(rest):
            break
        start += room - stride
    return [[tokenizer.bos_token_id, *before, *part, tokenizer.eos_token_id] for part in parts]


def hidden_of(model, ids):
    ids = torch.tensor([ids])
    features = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    return model[0](features)["token_embeddings"]  # [1, T, D]


WINDOWS = [  # text, prompt, stride, pooling, include_prompt, whether its tokens are wanted
    (LONG_TEXT, "", 0, ["mean"], True, False),
    (LONG_TEXT, "", 10, ["mean"], True, True),
    (LONG_TEXT, "", 40, ["mean"], True, False),
    (LONG_TEXT, "query: ", 7, ["mean"], True, True),
    (LONG_TEXT, "query: ", 7, ["mean"], False, False),
    (LONG_TEXT, "", 10, ["cls", "max", "weightedmean"], True, False),
    (TEXT, "", 10, ["mean"], True, True),
]


def windows():
    calls = []
    for text, prompt, stride, modes, include_prompt, wanted in WINDOWS:
        model, n = load_tiny(), len(calls)
        pooling = load_pooling({"embedding_dimension": 32, "pooling_mode": modes, "include_prompt": include_prompt})
        ids = split_in_windows(model, text, prompt, stride)
        skip = len(model.tokenizer(prompt, add_special_tokens=False)["input_ids"]) + 1 if prompt else 0
        pooled, counts, hidden = [], [], []
        for window in ids:
            hidden.append(hidden_of(model, window))
            features = {"token_embeddings": hidden[-1], "attention_mask": torch.ones(1, len(window), dtype=torch.int64)}
            if prompt:
                features["prompt_length"] = skip
            pooled.append(pooling(features)["sentence_embedding"][0])
            counts.append(len(window) - (0 if include_prompt else skip))
        weights = torch.tensor(counts, dtype=torch.float64)
        mean = (torch.stack(pooled) * weights[:, None]).sum(0) / weights.sum()
        TENSORS[f"windows/{n}"] = Normalize()({"sentence_embedding": mean[None]})["sentence_embedding"][0]
        if wanted:
            TENSORS[f"window_tokens/{n}"] = joined(hidden, stride, max(skip, 1))
        config = {"embedding_dimension": 32, "pooling_mode": modes, "include_prompt": include_prompt}
        calls.append({"text": text, "prompt": prompt, "stride": stride, "pooling": config, "ids": ids, "tokens": wanted})
    return calls


def joined(hidden, stride, before):
    """The vector of each token once: of `stride` tokens that two windows share, the first half from the earlier."""
    early, late = stride // 2, stride - stride // 2
    rows = []
    for n, window in enumerate(hidden):
        window = window[0]
        start = 0 if n == 0 else before + early
        end = len(window) if n == len(hidden) - 1 else len(window) - 1 - late
        rows.append(window[start:end])
    return torch.cat(rows)


def chunks():
    """Late chunking: mean of the token embeddings of each chunk, then Normalize."""
    calls = []
    for text, stride in ((LONG_TEXT[:160], None), (LONG_TEXT, 10)):
        model, n = load_tiny(), len(calls)
        bounds = [0, *(i + 1 for i, c in enumerate(text) if c in ".,;"), len(text)]
        ranges = [[a, b] for a, b in zip(bounds, bounds[1:]) if text[a:b].strip()]
        encoded = model.tokenizer(text, return_offsets_mapping=True)
        if stride is None:
            hidden = hidden_of(model, encoded["input_ids"])[0]
        else:
            hidden = joined([hidden_of(model, ids) for ids in split_in_windows(model, text, "", stride)], stride, 1)
        offsets = encoded["offset_mapping"]
        assert len(hidden) == len(offsets)
        members = [
            [i for i in range(1, len(offsets) - 1) if a <= offsets[i][0] < b] for a, b in ranges
        ]
        means = torch.stack([hidden[rows].mean(0) for rows in members])
        TENSORS[f"chunks/{n}"] = Normalize()({"sentence_embedding": means})["sentence_embedding"]
        calls.append({"text": text, "stride": stride, "char_ranges": ranges, "tokens": [len(rows) for rows in members]})
    return calls


@torch.inference_mode()
def main():
    torch.set_num_threads(1)
    goldens = {
        "versions": VERSIONS,
        "prompts": prompts(),
        "outputs": outputs(),
        "precisions": precisions(),
        "poolings": poolings(),
        "tokens": tokens(),
        "similarity": similarity(),
        "windows": windows(),
        "chunks": chunks(),
    }
    write_json(DATA / "encode_goldens.json", goldens)
    tensors = {name: tensor.detach().clone().contiguous() for name, tensor in TENSORS.items()}
    assert all(tensor.dtype == torch.float64 and tensor.isfinite().all() for tensor in tensors.values())
    save_file(tensors, DATA / "encode_goldens.safetensors", metadata={"versions": json.dumps(VERSIONS)})


if __name__ == "__main__":
    main()
