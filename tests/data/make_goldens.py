"""Writes the test data that comes from the reference implementation.

    pip install -r requirements.txt
    python make_goldens.py              # needs no network; rewrites the files below in place

Two models, both run in float64 with eager attention by Hugging Face transformers and sentence-transformers:

tiny/              a complete sentence-transformers directory like all-mpnet-base-v2's, with random weights
variants/*.safetensors   tiny's weights rounded to float16 and bfloat16
tiny_dense/        `Dense` modules, each a directory that can follow tiny's pooling
goldens.json       what tiny was asked (texts, prompts, pairs), its token ids, buckets, versions, seed
goldens.safetensors      what tiny answered, float64; `<i>` is an index into goldens.json's "texts":
    texts/<i>/embedding                 [D]           final: mean pooling, then normalised
    stages/hidden_states                [L+1, T, D]   of the text "stages"; [0] is the embedding layer
    stages/attentions                   [L, H, T, T]
    stages/position_bias                [H, T, T]
    stages/pooler_output                [D]
    pooling/<i>/hidden                  [T, D]        last hidden state of the texts in "pooling"
    pooling/<i>/<mode>                  [n·D]         pooled, not normalised; `a+b` are modes joined end to end
    pooling/<i>/<mode>/no_prompt        [n·D]         the same with the first `prompt_length` tokens left out
    prompts/<name>/embedding            [D]           of the text in "prompts" with that prompt before it
    full_length/embedding               [D]           of the text in "full_length", as long as positions allow
    dtypes/{f16,bf16}/embeddings        [texts, D]    weights of variants/, arithmetic in float64
    activations/<hidden_act>/embeddings [texts, D]    tiny with another feed-forward activation
    dense/<name>/embeddings             [texts, D/2]  mean pooling, Dense, normalised
synthetic.json     a model whose weights are a formula, written out in the file, and what it computes

The vocabulary is a selection from all-mpnet-base-v2/vocab.txt. Weights are drawn with numpy's PCG64 so that they
do not depend on the CPU; they are larger than an initialisation would be, so that an error anywhere shows.
"""

import json
import math
import os
import re
import tempfile
from importlib.metadata import version
from pathlib import Path

os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", TRANSFORMERS_VERBOSITY="error", TQDM_DISABLE="1")

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling
from transformers import MPNetConfig, MPNetForMaskedLM, MPNetModel

DATA = Path(__file__).resolve().parent
REAL = DATA / "all-mpnet-base-v2"
TINY = DATA / "tiny"
SEED = 20201
PACKAGES = "numpy safetensors sentence-transformers tokenizers torch transformers"
VERSIONS = {name: version(name) for name in PACKAGES.split()}

HIDDEN, POSITIONS, MAX_SEQ_LENGTH = 32, 130, 48
LONG_TEXT = (
    "A train left the old station early in the morning, and most of the people in it were still half asleep. "
    "Some read a newspaper, others looked out of the window at the river, which followed the line for many miles; "
    "nobody said a word until the first town came into view and the doors opened again."
)
TEXTS = [
    "world",
    "The weather is lovely today.",
    "",
    "Naïve café in Zürich — 東京, Привет! ΟΔΟΣ\u00a0½ 😀",
    "the <mask> of a<pad>b and </s> [UNK] or <UNK>",
    LONG_TEXT,
    "He was in the old house.",
    "  Don't  SHOUT:\tuser_name@example.com\ncosts $100 (50%)\u200b! ",
    "x" * 101 + " " + "x" * 100,
]
STAGES_TEXT = 6
POOLING_TEXTS, PROMPT_LENGTH = (1, 5), 3
MODES = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
FLAGS = ("cls_token", "max_tokens", "mean_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken")
POOLINGS = [*MODES, "cls+mean+lasttoken", "+".join(MODES)]
PROMPTS, PROMPT_TEXT = {"query": "query: ", "document": "passage: "}, 1
PAIRS = [
    ("how are you", "fine, thanks"),
    (LONG_TEXT, "A train left early."),
    ("There are many people in the old town today.", LONG_TEXT),
    (LONG_TEXT, LONG_TEXT),
]
PAIR_LENGTHS = (20, 11)
BUCKET_RANGE = 600
DENSE = {  # name → (activation, has a bias)
    "tanh": (torch.nn.Tanh(), True),
    "identity": (torch.nn.Identity(), False),
    "relu": (torch.nn.ReLU(), True),
    "gelu": (torch.nn.GELU(), True),
}


def read_json(path):
    return json.loads(path.read_text(encoding="utf-8"))


def write_json(path, value):
    """Indented, with every list of plain numbers on one line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(value, ensure_ascii=False, indent=2)
    text = re.sub(r"\[\n([-+.\de,\s]+)\]", lambda numbers: f"[{' '.join(numbers[1].split())}]", text)
    path.write_text(text + "\n", encoding="utf-8")


def normal(rng, shape, std, mean=0.0):
    """Float32 tensor of normally distributed values."""
    return torch.from_numpy((mean + std * rng.standard_normal(tuple(shape))).astype(np.float32))


# --- the tiny model


def tiny_vocabulary():
    """About 600 tokens of the real vocabulary, in its order: every special token and printable ASCII character,
    a few other scripts, and the most frequent words and word pieces."""
    real = (REAL / "vocab.txt").read_text(encoding="utf-8").splitlines()
    special = {"<s>", "<pad>", "</s>", "<unk>", "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "<mask>"}
    special |= {f"[unused{i}]" for i in range(3)}
    chars = [chr(c) for c in range(0x21, 0x7F) if not chr(c).isupper()] + list("αβσοδпривет中文日東京½—")
    words = [t for t in real if len(t) > 1 and t.isascii() and t.isalpha()][:260]
    pieces = [t for t in real if len(t) > 3 and t.startswith("##") and t[2:].isascii() and t[2:].isalpha()][:160]
    keep = special.union(chars, ("##" + c for c in chars), words, pieces)
    return [token for token in real if token in keep]


def write_tokenizer(vocabulary):
    ids = {token: i for i, token in enumerate(vocabulary)}
    (TINY / "vocab.txt").write_text("".join(token + "\n" for token in vocabulary), encoding="utf-8")

    # As published: truncation and padding to a fixed length are baked in, and whoever reads the file must ignore them.
    tokenizer = read_json(REAL / "tokenizer.json")
    tokenizer["truncation"]["max_length"] = 20
    tokenizer["padding"]["strategy"]["Fixed"] = 20
    for added in tokenizer["added_tokens"]:
        added["id"] = ids[added["content"]]
    tokenizer["model"]["vocab"] = ids
    text = json.dumps(tokenizer, ensure_ascii=False, separators=(",", ":"))
    (TINY / "tokenizer.json").write_text(text, encoding="utf-8")
    overrides = {"model_max_length": POSITIONS - 2, "name_or_path": "tiny"}
    write_json(TINY / "tokenizer_config.json", read_json(REAL / "tokenizer_config.json") | overrides)
    write_json(TINY / "special_tokens_map.json", read_json(REAL / "special_tokens_map.json"))


def write_weights(config, rng):
    """model.safetensors and its rounded variants."""
    weights = {}
    for name, parameter in MPNetModel(config).state_dict().items():
        if name.endswith("LayerNorm.weight"):
            weights[name] = normal(rng, parameter.shape, 0.2, mean=1.0)
        elif name.endswith(".bias"):
            weights[name] = normal(rng, parameter.shape, 0.2)
        else:
            std = {"word_embeddings": 0.5, "position_embeddings": 0.3, "relative_attention_bias": 1.0}
            weights[name] = normal(rng, parameter.shape, std.get(name.split(".")[-2], 0.25))
    for table in ("word_embeddings", "position_embeddings"):
        weights[f"embeddings.{table}.weight"][1] = 0.0  # the row of <pad>
    save_file(weights, TINY / "model.safetensors", metadata={"format": "pt"})
    for name, dtype in (("f16", torch.float16), ("bf16", torch.bfloat16)):
        path = DATA / "variants" / f"{name}.safetensors"
        path.parent.mkdir(exist_ok=True)
        save_file({k: v.to(dtype) for k, v in weights.items()}, path, metadata={"format": "pt"})


def pooling_config(modes, include_prompt=True):
    """The classic (boolean) form of 1_Pooling/config.json."""
    flags = {f"pooling_mode_{flag}": mode in modes for mode, flag in zip(MODES, FLAGS)}
    return {"word_embedding_dimension": HIDDEN} | flags | ({} if include_prompt else {"include_prompt": False})


def write_tiny(rng):
    TINY.mkdir(exist_ok=True)
    vocabulary = tiny_vocabulary()
    write_tokenizer(vocabulary)
    config = read_json(REAL / "config.json")  # keeps its "architectures", which names another class
    config.update(
        _name_or_path="tiny", vocab_size=len(vocabulary), hidden_size=HIDDEN, num_attention_heads=4,
        num_hidden_layers=3, intermediate_size=64, max_position_embeddings=POSITIONS,
    )  # fmt: skip
    write_json(TINY / "config.json", config)
    write_weights(MPNetConfig(**config), rng)
    write_json(TINY / "modules.json", read_json(REAL / "modules.json"))
    write_json(TINY / "sentence_bert_config.json", {"max_seq_length": MAX_SEQ_LENGTH, "do_lower_case": False})
    write_json(TINY / "1_Pooling" / "config.json", pooling_config(["mean"]))
    config = read_json(REAL / "config_sentence_transformers.json")
    config |= {"prompts": PROMPTS, "default_prompt_name": None, "similarity_fn_name": "cosine"}
    write_json(TINY / "config_sentence_transformers.json", config)


def write_dense(rng):
    for name, (activation, bias) in DENSE.items():
        weight, offset = normal(rng, (HIDDEN // 2, HIDDEN), 0.4), normal(rng, (HIDDEN // 2,), 0.3)
        dense = Dense(HIDDEN, HIDDEN // 2, bias, activation, init_weight=weight, init_bias=offset)
        directory = DATA / "tiny_dense" / f"2_Dense_{name}"
        directory.mkdir(parents=True, exist_ok=True)
        dense.save(str(directory))


# --- the goldens


def load_tiny(**config):
    """tiny/ in float64; `config` overrides fields of config.json."""
    eager = {"attn_implementation": "eager"}
    return SentenceTransformer(str(TINY), device="cpu", model_kwargs=eager, config_kwargs=config).double().eval()


def embed(encoder, texts=TEXTS, **options):
    embeddings = encoder.encode(texts, convert_to_tensor=True, show_progress_bar=False, **options)
    assert embeddings.dtype == torch.float64
    return embeddings.clone()


def token_ids(encoder, text):
    return encoder.preprocess([text])["input_ids"][0].tolist()


def stages(encoder):
    model = encoder[0].auto_model
    ids = torch.tensor([token_ids(encoder, TEXTS[STAGES_TEXT])])
    out = model(ids, torch.ones_like(ids), output_hidden_states=True, output_attentions=True)
    yield "stages/hidden_states", torch.cat(out.hidden_states)
    yield "stages/attentions", torch.cat(out.attentions)
    yield "stages/position_bias", model.encoder.compute_position_bias(out.hidden_states[0])[0]
    yield "stages/pooler_output", out.pooler_output[0]


def poolings(encoder):
    """Both texts as one padded batch, through the pooling module that each classic configuration loads as."""
    features = encoder[0](encoder.preprocess([TEXTS[i] for i in POOLING_TEXTS]))
    for row, i in enumerate(POOLING_TEXTS):
        yield f"pooling/{i}/hidden", features["token_embeddings"][row, features["attention_mask"][row].bool()]
    for name in POOLINGS:
        for suffix, include_prompt in (("", True), ("/no_prompt", False)):
            with tempfile.TemporaryDirectory() as directory:
                write_json(Path(directory) / "config.json", pooling_config(name.split("+"), include_prompt))
                pooling = Pooling.load(directory)
            pooled = pooling(dict(features, prompt_length=PROMPT_LENGTH))["sentence_embedding"]
            for row, i in enumerate(POOLING_TEXTS):
                yield f"pooling/{i}/{name}{suffix}", pooled[row]


def variants():
    """Embeddings of every text by models that differ from tiny in one thing."""
    for name in ("f16", "bf16"):
        encoder = load_tiny()
        rounded = load_file(DATA / "variants" / f"{name}.safetensors")
        encoder[0].auto_model.load_state_dict({key: value.double() for key, value in rounded.items()})
        yield f"dtypes/{name}/embeddings", embed(encoder)
    for act in ("gelu_new", "relu", "silu"):
        yield f"activations/{act}/embeddings", embed(load_tiny(hidden_act=act))
    for name in DENSE:
        encoder = load_tiny()
        dense = Dense.load(str(DATA / "tiny_dense" / f"2_Dense_{name}"))
        modules = [encoder[0], encoder[1], dense, Normalize()]
        yield f"dense/{name}/embeddings", embed(SentenceTransformer(modules=modules, device="cpu").double())


def write_goldens():
    encoder = load_tiny()
    tensors = {f"texts/{i}/embedding": vector for i, vector in enumerate(embed(encoder))}
    tensors |= dict(stages(encoder)) | dict(poolings(encoder)) | dict(variants())

    prompts = {}
    for name, prompt in PROMPTS.items():
        text = TEXTS[PROMPT_TEXT]
        tensors[f"prompts/{name}/embedding"] = embed(encoder, text, prompt_name=name)
        features = encoder.preprocess([text], prompt=prompt)
        ids, length = features["input_ids"][0].tolist(), features["prompt_length"]
        prompts[name] = {"prompt": prompt, "text": PROMPT_TEXT, "prompt_length": length, "ids": ids}

    texts = [{"text": text, "ids": token_ids(encoder, text)} for text in TEXTS]
    pairs = []
    for first, second in PAIRS:
        pair = {"first": first, "second": second, "ids": encoder.tokenizer(first, second).input_ids, "truncated": []}
        for n in PAIR_LENGTHS:
            ids = encoder.tokenizer(first, second, truncation="longest_first", max_length=n).input_ids
            pair["truncated"].append({"max_length": n, "ids": ids})
        pairs.append(pair)

    encoder.max_seq_length = POSITIONS - 2
    full = " ".join([LONG_TEXT] * 3)
    tensors["full_length/embedding"] = embed(encoder, full)

    relative = torch.arange(-BUCKET_RANGE, BUCKET_RANGE + 1)
    buckets = encoder[0].auto_model.encoder.relative_position_bucket(relative).tolist()
    goldens = {
        "versions": VERSIONS,
        "seed": SEED,
        "texts": texts,
        "stages": {"text": STAGES_TEXT},
        "pooling": {"texts": list(POOLING_TEXTS), "prompt_length": PROMPT_LENGTH, "modes": POOLINGS},
        "prompts": prompts,
        "full_length": {"max_seq_length": encoder.max_seq_length, "text": full, "ids": token_ids(encoder, full)},
        "pairs": pairs,
        "position_buckets": {"first": -BUCKET_RANGE, "buckets": buckets},
    }
    write_json(DATA / "goldens.json", goldens)
    tensors = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    assert all(tensor.dtype == torch.float64 and tensor.isfinite().all() for tensor in tensors.values())
    save_file(tensors, DATA / "goldens.safetensors", metadata={"versions": json.dumps(VERSIONS)})


# --- the synthetic model


def write_synthetic():
    config = dict(
        vocab_size=12, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=12, relative_attention_num_buckets=32, layer_norm_eps=1e-5, hidden_act="gelu",
    )  # fmt: skip
    model = MPNetForMaskedLM(MPNetConfig(**config, attn_implementation="eager")).double().eval()
    names = [name for name, _ in model.named_parameters()]
    names.insert(4, names.pop(names.index("mpnet.encoder.relative_attention_bias.weight")))
    names.append(names.pop(names.index("lm_head.bias")))
    for t, name in enumerate(names):
        parameter = model.get_parameter(name)
        s = [math.sin(0.7 * t + 0.13 * i * (1 + t % 5)) for i in range(parameter.numel())]
        s = torch.tensor(s, dtype=torch.float64).view(parameter.shape)
        is_norm = name.endswith(("LayerNorm.weight", "layer_norm.weight"))
        parameter.data.copy_(1 + 0.1 * s if is_norm else 0.1 * s if name.endswith(".bias") else 0.5 * s)

    def run(ids):
        ids = torch.tensor(ids)
        mask = (ids != 1).long()
        out = model(ids, mask, output_hidden_states=True, output_attentions=True)
        real = mask.unsqueeze(-1)
        hidden, attentions = torch.stack(out.hidden_states, 1), torch.stack(out.attentions, 1)
        pooled = (hidden[:, -1] * real).sum(1) / real.sum(1)
        names = ("input_ids", "attention_mask", "hidden_states", "attentions", "mlm_logits", "mean_pooled")
        tensors = (ids, mask, hidden, attentions, out.logits, pooled)
        return {name: tensor.tolist() for name, tensor in zip(names, tensors)}

    batch = [[0, 5, 6, 7, 2], [0, 8, 2, 1, 1]]
    padded = run(batch)
    pooled = torch.tensor(padded["mean_pooled"], dtype=torch.float64)
    padded["cosine"] = torch.cosine_similarity(pooled[0], pooled[1], dim=0).item()
    description = (
        "Parameter number t (its place in `parameters`), row-major element i: s = sin(0.7 t + 0.13 i (1 + t mod 5)). "
        "LayerNorm weights are 1 + 0.1 s, biases 0.1 s, all else 0.5 s. `padded` is the batch as it stands, pad "
        "positions included; `alone` is each text without its padding, as a batch of one. hidden_states "
        "[B, L+1, T, D], attentions [B, L, H, T, T], mlm_logits [B, T, V], mean_pooled [B, D]; `cosine` is that of "
        "the two pooled vectors."
    )
    alone = [run([[i for i in ids if i != 1]]) for ids in batch]
    about = {"versions": VERSIONS, "description": description, "config": config, "parameters": names}
    write_json(DATA / "synthetic.json", about | {"padded": padded, "alone": alone})


@torch.inference_mode()
def main():
    torch.set_num_threads(1)
    rng = np.random.default_rng(SEED)
    write_tiny(rng)
    write_dense(rng)
    write_goldens()
    write_synthetic()


if __name__ == "__main__":
    main()
