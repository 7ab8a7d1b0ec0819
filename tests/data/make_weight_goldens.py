"""Writes what the reference makes of tiny/ if its weights, its config.json or the settings of a cross-encoder are written in
other ways: other names, shards, fields that are missing or repeated, prompts, lengths.

    pip install -r requirements.txt
    python make_weight_goldens.py         # needs no network; rewrites weights.json

weights.json
    encoder          `layout` of the weights (a function below, and one of that name in tests/weights.rs), `files` to write and
                     `remove`, and the embeddings of `texts`, [texts, D]
    masked_lm        the same with heads/masked_lm.safetensors, and every 101st logit of each token of `ids`
    save_model       what safetensors' save_model calls the tensors of the masked language model, and its metadata
    cross_encoder    files around heads/reranker.safetensors, the scores of `pairs`, the longest pair that is not cut

Embeddings and logits are computed in float64, scores as `predict` returns them.
"""

import json
import os
import shutil
import tempfile
from pathlib import Path

os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", TRANSFORMERS_VERBOSITY="error", TQDM_DISABLE="1")

import torch
from make_goldens import TINY, VERSIONS, write_json
from safetensors import safe_open
from safetensors.torch import load_file, save_file, save_model
from sentence_transformers import CrossEncoder, SentenceTransformer
from transformers import MPNetForMaskedLM

DATA = Path(__file__).resolve().parent
W = load_file(TINY / "model.safetensors")
WORDS = "embeddings.word_embeddings.weight"
CONFIG = json.loads((TINY / "config.json").read_text())
TEXTS = ["the man is here", "", "2 + 2 people were in the house"]
IDS = [0, 98, 259, 604, 105, 283, 2]
PAIRS = [["the man is here", "who is there"], ["", "the people of the world"], ["The MAN was", "in the house"]]
SHARD = "model-00001-of-00001.safetensors"
INDEX = "model.safetensors.index.json"
SHIFT = 0.125


def shifted(tensors):
    return {name: tensor + SHIFT for name, tensor in tensors.items()}


def gamma(name):
    return name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")


def prefixed(tensors):
    return {f"mpnet.{name}": tensor for name, tensor in tensors.items()}


# Each: the tensors of every weight file.
LAYOUTS = {
    "plain": lambda: {"model.safetensors": W},
    "every_second_name_prefixed": lambda: {
        "model.safetensors": {name if i % 2 else f"mpnet.{name}": W[name] for i, name in enumerate(sorted(W))}
    },
    "both_names_plain_shifted": lambda: {"model.safetensors": prefixed(W) | shifted(W)},
    "both_names_prefixed_shifted": lambda: {"model.safetensors": W | prefixed(shifted(W))},
    "gamma_and_weight": lambda: {
        "model.safetensors": W | {gamma(n): t for n, t in shifted(W).items() if gamma(n) != n}
    },
    "gamma_and_bias": lambda: {
        "model.safetensors": {n.replace("LayerNorm.weight", "LayerNorm.gamma"): t for n, t in W.items()}
    },
    "shard": lambda: {SHARD: W},
    "shard_in_folder": lambda: {"part/" + SHARD: W},
    "earlier_shard_shifted": lambda: {"a.safetensors": shifted(W), SHARD: W},
    "later_shard_shifted": lambda: {SHARD: W, "z.safetensors": shifted(W)},
}


def index(files, more=(), **fields):
    """An index that lists the tensors of tiny/ in the first of `files`, and one more in each of the others."""
    names = {name: files[0] for name in fields.pop("listed", sorted(W))}
    names |= {f"other.{i}": file for i, file in enumerate(files[1:])} | {name: files[0] for name in more}
    return {INDEX: json.dumps({"metadata": {"total_size": 1}, "weight_map": names})}


def config(text=None, without=(), **fields):
    fields = {key: value for key, value in (CONFIG | fields).items() if key not in without}
    return {"config.json": (text or (lambda json: json))(json.dumps(fields))}


ENCODER = [
    {"layout": "plain"},
    {"layout": "every_second_name_prefixed"},
    {"layout": "both_names_plain_shifted"},
    {"layout": "both_names_prefixed_shifted"},
    {"layout": "gamma_and_weight"},
    {"layout": "gamma_and_bias"},
    {"layout": "shard", "files": index(["./" + SHARD])},
    {"layout": "shard", "files": index([SHARD], more=["embeddings.position_ids", "cls.bias"])},
    {"layout": "shard", "files": index([SHARD], listed=[WORDS])},
    {"layout": "shard_in_folder", "files": index([".//part/./" + SHARD])},
    {"layout": "earlier_shard_shifted", "files": index([SHARD, "a.safetensors"])},
    {"layout": "later_shard_shifted", "files": index([SHARD, "z.safetensors"])},
    {"layout": "later_shard_shifted", "files": index([SHARD, "./z.safetensors"])},
    {"files": config(lambda text: text[:-1] + ', "hidden_act": "relu"}')},
    {"files": config(lambda text: '{"hidden_act": "relu", "num_hidden_layers": 1, ' + text[1:])},
    {"files": config(lambda text: text[:-1] + ', "loss": NaN, "bounds": [Infinity, -Infinity, 1e999], "tag": "\\ud83d"}')},
    {"files": config(lambda text: text[:-1] + ', "steps": 123456789012345678901234567890}')},
    {"files": config(hidden_act="linear")},
    {"files": config(hidden_act="leaky_relu")},
    {"files": config(hidden_act="sigmoid")},
    {"files": config(hidden_act="gelu_accurate")},
    {"files": config(hidden_act="gelu_python_tanh")},
    {"files": config(without=["hidden_act", "layer_norm_eps", "relative_attention_num_buckets", "architectures"])},
    {"files": config(num_hidden_layers=2)},
    {"files": config(
        pad_token_id=5, is_decoder=True, add_cross_attention=True, chunk_size_feed_forward=2, pruned_heads={"0": [1]},
        use_bidirectional_attention=False, is_causal=True, output_hidden_states=True, return_dict=False,
        auto_map={"AutoModel": "modeling_x.X"}, architectures=None, quantization_config=None, embedding_size=16,
    )},
]


def encoder(case):
    with tempfile.TemporaryDirectory() as directory:
        assemble(Path(directory), LAYOUTS[case.setdefault("layout", "plain")](), case.setdefault("files", {}))
        kwargs = {"attn_implementation": "eager"}
        model = SentenceTransformer(directory, device="cpu", model_kwargs=kwargs).double().eval()
        return case | {"embeddings": rounded(model.encode(TEXTS, convert_to_tensor=True))}


def rounded(tensor):
    """Rows of numbers to ten digits after the point, which is far more than is compared."""
    return [[round(x, 10) for x in row] for row in tensor.tolist()]


def assemble(directory, weights, files):
    shutil.copytree(TINY, directory, dirs_exist_ok=True)
    (directory / "model.safetensors").unlink()
    for name, tensors in weights.items():
        (directory / name).parent.mkdir(exist_ok=True)
        save_file({key: tensor.clone() for key, tensor in tensors.items()}, directory / name, metadata={"format": "pt"})
    for name, text in files.items():
        (directory / name).parent.mkdir(exist_ok=True)
        (directory / name).write_text(text, encoding="utf-8")


HEAD = load_file(DATA / "heads" / "masked_lm.safetensors")
MLM = prefixed({name: tensor for name, tensor in W.items() if not name.startswith("pooler.")}) | HEAD
NO_WORDS = {name: tensor for name, tensor in MLM.items() if not name.endswith(WORDS)}
NO_BIAS = {name: tensor for name, tensor in MLM.items() if name != "lm_head.bias"}
DECODER = "lm_head.decoder.weight"
OTHER = {DECODER: 2 * W[WORDS], "lm_head.decoder.bias": HEAD["lm_head.bias"] + 1}
UNTIED = config(tie_word_embeddings=False)
MASKED_LM = [
    {"layout": "both_tied"},
    {"layout": "decoder_only"},
    {"layout": "decoder_bias_only"},
    {"layout": "other_bias"},
    {"layout": "other_decoder"},
    {"layout": "other_decoder", "files": UNTIED},
    {"layout": "prefixed_head"},
    {"layout": "plain_encoder"},
]
LAYOUTS |= {
    "both_tied": lambda: {"model.safetensors": MLM},
    "decoder_only": lambda: {"model.safetensors": NO_WORDS | {DECODER: W[WORDS]}},
    "decoder_bias_only": lambda: {"model.safetensors": NO_BIAS | {"lm_head.decoder.bias": HEAD["lm_head.bias"]}},
    "other_bias": lambda: {"model.safetensors": MLM | {"lm_head.decoder.bias": OTHER["lm_head.decoder.bias"]}},
    "other_decoder": lambda: {"model.safetensors": MLM | OTHER},
    "prefixed_head": lambda: {
        "model.safetensors": {name if name.startswith("mpnet.") else f"mpnet.{name}": t for name, t in MLM.items()}
    },
    "plain_encoder": lambda: {"model.safetensors": {name.removeprefix("mpnet."): t for name, t in MLM.items()}},
}


def masked_lm(case):
    with tempfile.TemporaryDirectory() as directory:
        assemble(Path(directory), LAYOUTS[case["layout"]](), case.setdefault("files", {}))
        model, info = MPNetForMaskedLM.from_pretrained(directory, attn_implementation="eager", output_loading_info=True)
    assert not info["missing_keys"], info
    ids = torch.tensor([IDS])
    logits = model.double().eval()(ids, torch.ones_like(ids)).logits
    return case | {"logits": rounded(logits[0, :, ::101])}


def saved_by_safetensors():
    """What its own save_model writes of a model with tied tensors."""
    with tempfile.TemporaryDirectory() as directory:
        assemble(Path(directory), LAYOUTS["both_tied"](), {})
        model = MPNetForMaskedLM.from_pretrained(directory)
        save_model(model, directory + "/model.safetensors", metadata={"format": "pt"})
        with safe_open(directory + "/model.safetensors", "pt") as file:
            return {"names": sorted(file.keys()), "metadata": file.metadata()}


TRANSFORMER = "sentence_transformers.base.modules.transformer.Transformer"
SETTINGS = "config_sentence_transformers.json"
PROMPTS = {"prompts": {"q": "the university: ", "none": None, "d": "in the house "}, "default_prompt_name": "q"}
SETTINGS_OF_TRANSFORMER = {
    "transformer_task": "sequence-classification",
    "modality_config": {"text": {"method": "forward", "method_output_name": "logits"}},
    "module_output_name": "scores",
}


def saved(settings=None, transformer=None, modules=True, path="", **files):
    """The files of sentence-transformers around those of transformers."""
    files = {name.replace("__", "."): json.dumps(fields) for name, fields in files.items()}
    if settings is not None:
        files[SETTINGS] = json.dumps(settings)
    files["sentence_bert_config.json"] = json.dumps(SETTINGS_OF_TRANSFORMER | (transformer or {}))
    if modules:
        files["modules.json"] = json.dumps([{"idx": 0, "name": "0", "path": path, "type": TRANSFORMER}])
    return files


KIND = {"model_type": "CrossEncoder"}
IDENTITY = "torch.nn.modules.linear.Identity"
CASED = json.loads((TINY / "tokenizer.json").read_text())
CASED["normalizer"]["lowercase"] = False
CASED = {
    "tokenizer__json": CASED,
    "tokenizer_config__json": {"do_lower_case": False, "model_max_length": 128, "tokenizer_class": "MPNetTokenizer"},
}
CROSS_ENCODERS = [
    {"files": saved(KIND)},
    {"files": saved(KIND | PROMPTS)},
    {"files": saved(KIND | PROMPTS), "prompt_name": "d"},
    {"files": saved(KIND | PROMPTS), "prompt_name": "none"},
    {"files": saved(KIND | PROMPTS), "prompt": "who was "},
    {"files": saved(KIND | PROMPTS | {"default_prompt_name": None})},
    {"files": saved(KIND | PROMPTS | {"activation_fn": IDENTITY})},
    {"files": saved(PROMPTS | {"activation_fn": IDENTITY})},
    {"files": saved(PROMPTS | {"activation_fn": IDENTITY, "model_type": "SentenceTransformer"})},
    {"files": saved(KIND | PROMPTS | {"activation_fn": IDENTITY}, modules=False)},
    {"files": saved(KIND, {"max_seq_length": 14})},
    {"files": saved(KIND, {"max_seq_length": 14}, modules=False)},
    {"files": saved(KIND, {"max_seq_length": 40, "tokenizer_args": {"model_max_length": 15}})},
    {"files": saved(KIND, tokenizer_config__json={"model_max_length": 16, "tokenizer_class": "MPNetTokenizer"})},
    {"files": saved(KIND | {"prompts": {}}, **CASED)},
    {"files": saved(KIND | {"prompts": {}}, {"do_lower_case": True}, **CASED)},
    {"files": saved(KIND | PROMPTS, path="./0_Transformer"), "folder": "0_Transformer"},
]


def cross_encoder(case):
    tensors = prefixed({name: tensor for name, tensor in W.items() if not name.startswith("pooler.")})
    tensors |= load_file(DATA / "heads" / "reranker.safetensors")
    own = config(id2label={"0": "LABEL_0"}, architectures=["MPNetForSequenceClassification"])
    with tempfile.TemporaryDirectory() as directory:
        directory = Path(directory)
        assemble(directory, {"model.safetensors": tensors}, {})
        for name in ("modules.json", SETTINGS, "sentence_bert_config.json", "vocab.txt", "special_tokens_map.json"):
            (directory / name).unlink()
        for name, text in (own | case["files"]).items():
            (directory / name).write_text(text)
        if "folder" in case:
            (directory / case["folder"]).mkdir()
            for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "sentence_bert_config.json"):
                (directory / name).rename(directory / case["folder"] / name)
        kwargs = {"attn_implementation": "eager"}
        model = CrossEncoder(str(directory), device="cpu", model_kwargs=kwargs).double().eval()
    prompt = {key: case[key] for key in ("prompt", "prompt_name") if key in case}
    return case | {
        "prompts": model.prompts,
        "scores": model.predict(PAIRS, **prompt).tolist(),
        "limit": min(model.max_seq_length, model.config.max_position_embeddings - 2),
    }


def main():
    with torch.inference_mode():
        out = {
            "versions": VERSIONS,
            "texts": TEXTS,
            "ids": IDS,
            "pairs": PAIRS,
            "encoder": [encoder(case) for case in ENCODER],
            "masked_lm": [masked_lm(case) for case in MASKED_LM],
            "save_model": saved_by_safetensors(),
            "cross_encoder": [cross_encoder(case) for case in CROSS_ENCODERS],
        }
    write_json(DATA / "weights.json", out)


if __name__ == "__main__":
    main()
