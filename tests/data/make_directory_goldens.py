"""What sentence-transformers makes of directories that are like `tiny/` but for a file or a field.

    python make_directory_goldens.py        # writes directories.json

CASES below is the list of directories: each says what is edited in a copy of `tiny/`, and which texts are encoded. The test
`tests/directories.rs` makes the same edits. For each case the reference's token ids and embeddings (float64, of the weights in
float32) are written down, or that it refuses the directory. `ours` is what this crate does where it does not do the same: it
refuses, and the text that its message must have.

Versions: requirements.txt (sentence-transformers 6.2.0, transformers 5.23.0, tokenizers 0.23.3).
"""

import copy
import json
import os
import shutil
import sys
import tempfile
import warnings
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
warnings.filterwarnings("ignore")

import numpy as np  # noqa: E402
import torch  # noqa: E402
from safetensors.numpy import load_file, save_file  # noqa: E402
from sentence_transformers import SentenceTransformer  # noqa: E402

HERE = Path(__file__).parent
SAVED = {  # what sentence-transformers 6 writes
    "transformer_task": "feature-extraction",
    "modality_config": {"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
    "module_output_name": "token_embeddings",
}
LONG = (
    "the first people of the world and the other people who were there before the war and after the school and through the "
    "years of the state and between three other people against the university national their later under around "
    + "the first people of the world " * 4
)
FRONT = "the first people of the world " * 9 + "who was there before the war"
WORDS = ["The University of the WORLD", "caf\u00e9 \u00dcber", "people \u65e5\u672c", "xyzzy \u2603", "[unused0] a", "the <mask> [UNK] <unk>"]
HERE_HE_IS = ["the man is here"]


def flags(content, **other):
    return {"content": content, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False, **other}


def token(content, **other):
    return {"__type": "AddedToken", **flags(content, **other)}


def hidden(output):
    return {**SAVED, "modality_config": {"text": {"method": "forward", "method_output_name": output}}}


def calls(**text):
    return {**SAVED, "processing_kwargs": {"text": text}}


ALL_ADDED = {"0": flags("<s>", special=True), "1": flags("<pad>", special=True), "2": flags("</s>", special=True), "8": flags("[UNK]", special=True), "604": flags("<mask>", special=True, lstrip=True)}

# name: (edits, texts, what else). An edit is [file, "set", fields], [file, "write", JSON], [file, "text", text], [file, "remove"],
# [file, "path", [keys ...], value], ["", "grow", rows]: that many more rows of the embedding table.
CONFIG, MAP, WORDPIECE, BERT = "tokenizer_config.json", "special_tokens_map.json", "tokenizer.json", "sentence_bert_config.json"
CASES = {
    # Truncation.
    "truncation side of the settings": ([[CONFIG, "set", {"truncation_side": "left"}]], [FRONT]),
    "truncation side of tokenizer.json": ([[WORDPIECE, "path", ["truncation"], {"direction": "Left", "max_length": 20, "strategy": "LongestFirst", "stride": 0}]], [FRONT]),
    "the settings' side before the file's": ([[WORDPIECE, "path", ["truncation", "direction"], "Left"], [CONFIG, "set", {"truncation_side": "right"}]], [FRONT]),
    "truncation side as an argument": ([[BERT, "set", {"tokenizer_args": {"truncation_side": "left"}}]], [FRONT]),
    "cut at the left, with a prompt that is not pooled": ([[CONFIG, "set", {"truncation_side": "left"}], ["1_Pooling/config.json", "set", {"include_prompt": False}], ["config_sentence_transformers.json", "set", {"default_prompt_name": "query"}]], [FRONT, "the man is here"]),
    "truncation side null": ([[CONFIG, "set", {"truncation_side": None}]], HERE_HE_IS),
    # The tokenizer's settings count, not tokenizer.json.
    "cased": ([[CONFIG, "set", {"do_lower_case": False}]], WORDS),
    "accents kept": ([[CONFIG, "set", {"strip_accents": False}]], WORDS),
    "Chinese not spaced": ([[CONFIG, "set", {"tokenize_chinese_chars": False}]], WORDS),
    "another unknown token in the map": ([[MAP, "set", {"unk_token": "<unk>"}]], WORDS),
    "another unknown token in the settings": ([[CONFIG, "set", {"unk_token": "<unk>"}], [MAP, "remove"]], WORDS),
    "a special token more in the map": ([[MAP, "set", {"additional_special_tokens": ["[unused0]"]}]], WORDS),
    "a special token more in the settings": ([[CONFIG, "set", {"additional_special_tokens": ["[unused0]"]}]], WORDS),
    "a special token more by its newer name": ([[CONFIG, "set", {"extra_special_tokens": ["[unused0]"]}]], WORDS),
    "special tokens with names of their own": ([[CONFIG, "set", {"extra_special_tokens": {"image_token": "[unused0]"}}]], WORDS),
    "a special token of the model's own": ([[CONFIG, "set", {"image_token": "[unused0]"}]], WORDS),
    "the normalizer of tokenizer.json does not count": ([[WORDPIECE, "path", ["normalizer"], None]], WORDS),
    "the pre-tokenizer of tokenizer.json does not count": ([[WORDPIECE, "path", ["pre_tokenizer"], {"type": "WhitespaceSplit"}]], WORDS + ["here, there."]),
    "the post-processor of tokenizer.json does not count": ([[WORDPIECE, "path", ["post_processor"], None]], WORDS),
    "the longest word of tokenizer.json does not count": ([[WORDPIECE, "path", ["model", "max_input_chars_per_word"], 3]], WORDS),
    "the unknown token of tokenizer.json does not count": ([[WORDPIECE, "path", ["model", "unk_token"], "<unk>"]], WORDS),
    "the map does not count beside a list of added tokens": ([[CONFIG, "set", {"added_tokens_decoder": ALL_ADDED}], [MAP, "set", {"unk_token": "<unk>"}]], WORDS),
    "another end of text": ([[MAP, "set", {"sep_token": "people"}]], WORDS),
    "another beginning of text": ([[CONFIG, "set", {"cls_token": "world"}], [MAP, "remove"]], WORDS),
    "a mask that keeps the space before it": ([[MAP, "set", {"mask_token": flags("<mask>")}]], WORDS),
    "a mask in words": ([[CONFIG, "set", {"mask_token": token("war", single_word=True)}], [MAP, "remove"]], ["war wars before the war."]),
    "special tokens split": ([[CONFIG, "set", {"split_special_tokens": True}]], WORDS),
    "the tokenizer as it is saved": ([[CONFIG, "set", {"tokenizer_class": "PreTrainedTokenizerFast", "do_lower_case": False, "unk_token": "<unk>"}]], WORDS),
    "as saved, without a lower-casing normalizer": ([[CONFIG, "set", {"tokenizer_class": "PreTrainedTokenizerFast"}], [WORDPIECE, "path", ["normalizer", "lowercase"], False]], WORDS),
    "as saved, a special token more": ([[CONFIG, "set", {"tokenizer_class": "TokenizersBackend", "extra_special_tokens": ["[unused0]"]}]], WORDS),
    "the class of config.json": ([[CONFIG, "set", {"tokenizer_class": None}], ["config.json", "set", {"tokenizer_class": "PreTrainedTokenizerFast"}], [WORDPIECE, "path", ["normalizer", "lowercase"], False]], WORDS),
    "BERT's tokenizer": ([[CONFIG, "write", {"tokenizer_class": "BertTokenizer", "cls_token": "<s>", "sep_token": "</s>", "pad_token": "<pad>", "mask_token": "<mask>"}], [MAP, "remove"]], WORDS),
    "an empty class": ([[CONFIG, "set", {"tokenizer_class": ""}]], WORDS, {"ours": "tokenizer_class"}),
    "as saved, the token of its padding": ([[CONFIG, "write", {"tokenizer_class": "PreTrainedTokenizerFast"}], [MAP, "remove"], [WORDPIECE, "path", ["padding", "pad_token"], "the"], [WORDPIECE, "path", ["padding", "pad_id"], 98]], ["therehouse the"]),
    "an end of text by an argument": ([[CONFIG, "set", {"tokenizer_class": "PreTrainedTokenizerFast"}], [BERT, "set", {"tokenizer_args": {"add_eos_token": True}}]], HERE_HE_IS, {"ours": "add_eos_token"}),
    "special tokens split if 1": ([[BERT, "write", calls(split_special_tokens=1)]], HERE_HE_IS),
    "a normalization with another field": ([["2_Normalize/config.json", "write", {"foo": 1}]], HERE_HE_IS),
    "no settings": ([[CONFIG, "remove"]], WORDS + [FRONT]),
    "no map": ([[MAP, "remove"]], WORDS),
    "no small files": ([[CONFIG, "remove"], [MAP, "remove"]], WORDS),
    "only a vocabulary": ([[WORDPIECE, "remove"]], WORDS),
    "only a vocabulary, cased": ([[WORDPIECE, "remove"], [CONFIG, "set", {"do_lower_case": False}]], WORDS),
    "lower case null": ([[CONFIG, "set", {"do_lower_case": None}]], HERE_HE_IS),
    "lower case a number": ([[CONFIG, "set", {"do_lower_case": 0}]], HERE_HE_IS),
    "a special token without its mark": ([[CONFIG, "set", {"mask_token": flags("<mask>")}], [MAP, "remove"]], HERE_HE_IS),
    "a class that does not exist": ([[CONFIG, "set", {"tokenizer_class": "MyTokenizer"}]], HERE_HE_IS, {"ours": "MyTokenizer"}),
    # Added tokens.
    "added_tokens.json": ([["", "grow", 2], [WORDPIECE, "remove"], ["added_tokens.json", "write", {"covid": 605, "sarscov": 606}]], ["covid sarscov covids", "COVID Sarscov"]),
    "added_tokens.json in another order": ([["", "grow", 2], [WORDPIECE, "remove"], ["added_tokens.json", "write", {"sarscov": 606, "covid": 605}]], ["covid sarscov covids"]),
    "a list of added tokens": ([["", "grow", 2], [WORDPIECE, "remove"], [CONFIG, "set", {"added_tokens_decoder": {"605": flags("covid", normalized=True), "606": flags("sarscov", normalized=True)}}]], ["covid sarscov covids", "COVID"]),
    "a list of added tokens beside tokenizer.json": ([["", "grow", 2], [CONFIG, "set", {"added_tokens_decoder": {**ALL_ADDED, "605": flags("covid", single_word=True), "606": flags("Sarscov", normalized=True)}}]], ["covid covids sarscov Sarscov COVID", "a<mask> <mask>"]),
    "an added token that the map has, too": ([["", "grow", 1], [WORDPIECE, "remove"], [MAP, "set", {"additional_special_tokens": ["[E1]"]}], ["added_tokens.json", "write", {"[E1]": 605}]], ["the [e1] the [E1]"]),
    "an added token that the map has by its newer name": ([["", "grow", 1], [WORDPIECE, "remove"], [MAP, "set", {"extra_special_tokens": ["[E1]"]}], ["added_tokens.json", "write", {"[E1]": 605}]], ["the [e1] the [E1]"]),
    "an added token that the settings have as an object": ([["", "grow", 1], [WORDPIECE, "remove"], [MAP, "remove"], [CONFIG, "set", {"extra_special_tokens": [token("[E1]", special=True)]}], ["added_tokens.json", "write", {"[E1]": 605}]], ["the [e1] the [E1]"]),
    "an added mask that the settings have as an object": ([[WORDPIECE, "remove"], [MAP, "remove"], [CONFIG, "set", {"mask_token": token("<mask>", lstrip=True)}], ["added_tokens.json", "write", {"<mask>": 604}]], ["the <MASK> the <mask>"]),
    "an added mask in the map": ([[WORDPIECE, "remove"], ["added_tokens.json", "write", {"<mask>": 604}]], ["the <MASK> the <mask>"]),
    "added_tokens.json beside tokenizer.json": ([["", "grow", 2], ["added_tokens.json", "write", {"covid": 605, "sarscov": 606}]], ["covid sarscov covids"]),
    "an added token in the vocabulary": ([["added_tokens.json", "write", {"people": 213}]], ["peoples people", "the people"]),
    "added tokens of tokenizer.json": ([["", "grow", 1], [WORDPIECE, "path", ["added_tokens", "+"], {"id": 605, **flags("covid", normalized=True)}]], ["covid covids COVID"]),
    "a special token that is new": ([["", "grow", 1], [MAP, "set", {"additional_special_tokens": ["[DOC]"]}]], ["[DOC] the people", "[doc] the people"]),
    "a mask that the vocabulary lacks": ([[MAP, "set", {"mask_token": "[BLANK]"}]], ["the man", "the <mask> man"]),
    # The transformer module's settings.
    "fewer layers": ([[BERT, "write", {"max_seq_length": 48, "do_lower_case": False, "config_args": {"num_hidden_layers": 2}}]], [LONG]),
    "another activation": ([[BERT, "write", {"max_seq_length": 48, "do_lower_case": False, "config_kwargs": {"hidden_act": "relu"}}]], [LONG]),
    "another epsilon": ([[BERT, "write", {"max_seq_length": 48, "config_args": {"layer_norm_eps": 0.01}}]], [LONG]),
    "a length for the tokenizer": ([[BERT, "write", {"tokenizer_args": {"model_max_length": 12}}]], [LONG]),
    "a length for the processor before the module's": ([[BERT, "write", {"max_seq_length": 20, "processor_kwargs": {"model_max_length": 12}}]], [LONG]),
    "the older name of arguments counts": ([[BERT, "write", {"tokenizer_args": {"model_max_length": 14}, "processor_kwargs": {"model_max_length": 12}}]], [LONG]),
    "cased by an argument": ([[BERT, "write", {"max_seq_length": 48, "tokenizer_args": {"do_lower_case": False}}]], WORDS),
    "an unknown token by an argument": ([[BERT, "write", {"max_seq_length": 48, "tokenizer_args": {"unk_token": "<unk>"}}]], WORDS),
    "a length for each call": ([[BERT, "write", calls(truncation=True, max_length=10)]], [LONG]),
    "a length for each call, for all inputs": ([[BERT, "write", {**SAVED, "processing_kwargs": {"common": {"max_length": 11}, "text": {"max_length": 10}}}]], [LONG]),
    "without special tokens": ([[BERT, "write", calls(add_special_tokens=False)]], [LONG, "the man is here"]),
    "without special tokens, a prompt that is not pooled": ([[BERT, "write", calls(add_special_tokens=False)], ["1_Pooling/config.json", "set", {"include_prompt": False}], ["config_sentence_transformers.json", "set", {"default_prompt_name": "query"}]], ["the man is here"]),
    "special tokens split by each call": ([[BERT, "write", calls(split_special_tokens=True)]], WORDS),
    "not truncated": ([[BERT, "write", {**calls(truncation=False), "max_seq_length": 20}]], [LONG]),
    "padding changes nothing": ([[BERT, "write", calls(padding="max_length", pad_to_multiple_of=8)]], HERE_HE_IS),
    "the layer before the last": ([[BERT, "write", hidden(["hidden_states", -2])]], [LONG]),
    "the first layer": ([[BERT, "write", hidden(["hidden_states", 1])]], [LONG]),
    "the embeddings": ([[BERT, "write", hidden(["hidden_states", 0])]], [LONG]),
    "the last hidden state as a list": ([[BERT, "write", hidden(["last_hidden_state"])]], [LONG]),
    "a layer that is not there": ([[BERT, "write", hidden(["hidden_states", 4])]], [LONG]),
    "the pooler's output": ([[BERT, "write", hidden("pooler_output")]], [LONG], {"ours": "pooler_output"}),
    "settings as they are saved today": ([[BERT, "write", SAVED]], [LONG]),
    "the next file if the first is empty": ([[BERT, "write", {}], ["sentence_roberta_config.json", "write", {"max_seq_length": 10}]], [LONG]),
    "the first file counts": ([["sentence_roberta_config.json", "write", {"max_seq_length": 10}]], [LONG]),
    "another file of that kind": ([[BERT, "remove"], ["sentence_xlm-roberta_config.json", "write", {"max_seq_length": 10}]], [LONG]),
    "lower case null in the module": ([[BERT, "write", {"max_seq_length": 40, "do_lower_case": None}]], HERE_HE_IS),
    "lower case 1 in the module": ([[BERT, "write", {"max_seq_length": 40, "do_lower_case": 1}], [CONFIG, "set", {"do_lower_case": False}]], WORDS),
    "a field that is not known": ([[BERT, "write", {"max_seq_length": 40, "my_setting": 7}]], HERE_HE_IS),
    "model arguments that change nothing": ([[BERT, "write", {"max_seq_length": 40, "model_args": {"attn_implementation": "eager"}}]], HERE_HE_IS),
    "a variant of the weights": ([[BERT, "write", {"max_seq_length": 40, "model_args": {"variant": "fp16"}}]], HERE_HE_IS),
    "another tokenizer": ([[BERT, "write", {"max_seq_length": 40, "tokenizer_name_or_path": "elsewhere"}]], HERE_HE_IS),
    "unlimited": ([[BERT, "remove"], [CONFIG, "set", {"model_max_length": 1000000000000000019884624838656}]], [LONG]),
    "max_len of old": ([[BERT, "remove"], [CONFIG, "path", ["model_max_length"], "-"], [CONFIG, "set", {"max_len": 15}]], [LONG]),
    # Modules.
    "a pooling of the author's": ([["modules.json", "path", [1, "type"], "custom_st.Pooling"]], HERE_HE_IS),
    "a transformer of the author's": ([["modules.json", "path", [0, "type"], "custom_st.Transformer"]], HERE_HE_IS),
    "a package with a similar name": ([["modules.json", "path", [1, "type"], "sentence_transformers_plus.models.Pooling"]], HERE_HE_IS),
    "a class without a package": ([["modules.json", "path", [1, "type"], "Pooling"]], HERE_HE_IS),
    "a Normalize of the author's": ([["modules.json", "path", [2, "type"], "my.Normalize"]], HERE_HE_IS),
    "class paths of version 6": ([["modules.json", "path", [0, "type"], "sentence_transformers.base.modules.transformer.Transformer"], ["modules.json", "path", [1, "type"], "sentence_transformers.sentence_transformer.modules.pooling.Pooling"], ["modules.json", "path", [2, "type"], "sentence_transformers.base.modules.normalize.Normalize"]], HERE_HE_IS),
    "class paths with the file": ([["modules.json", "path", [1, "type"], "sentence_transformers.models.Pooling.Pooling"]], HERE_HE_IS),
    "a path that is the directory": ([["modules.json", "path", [0, "path"], "."]], HERE_HE_IS),
    "a path with a dot before it": ([["modules.json", "path", [1, "path"], "./1_Pooling"]], HERE_HE_IS),
    "a path with slashes after it": ([["modules.json", "path", [1, "path"], ".//1_Pooling/./"]], HERE_HE_IS),
    "a path that leads out": ([["modules.json", "path", [1, "path"], "1_Pooling/../1_Pooling"]], HERE_HE_IS),
    "a pooling flag null": ([["1_Pooling/config.json", "set", {"pooling_mode_lasttoken": None}]], HERE_HE_IS),
    "a pooling flag 1": ([["1_Pooling/config.json", "set", {"pooling_mode_mean_tokens": 1}]], HERE_HE_IS),
    "a pooling flag 0": ([["1_Pooling/config.json", "set", {"pooling_mode_mean_tokens": 0, "pooling_mode_cls_token": 1}]], HERE_HE_IS),
    "include_prompt null": ([["1_Pooling/config.json", "set", {"include_prompt": None}], ["config_sentence_transformers.json", "set", {"default_prompt_name": "query"}]], HERE_HE_IS),
    "a pooling field that is not known": ([["1_Pooling/config.json", "set", {"attention_heads": 2}]], HERE_HE_IS),
    "pooling_mode null": ([["1_Pooling/config.json", "write", {"embedding_dimension": 32, "pooling_mode": None}]], HERE_HE_IS),
    "both names of the width": ([["1_Pooling/config.json", "set", {"embedding_dimension": 32}]], HERE_HE_IS),
    "no modules.json": ([["modules.json", "remove"], ["config_sentence_transformers.json", "set", {"default_prompt_name": "query", "truncate_dim": 8}]], [LONG, "the man is here"]),
    "no modules.json, a template for chats": ([["modules.json", "remove"], [CONFIG, "set", {"chat_template": "{{ messages }}"}]], HERE_HE_IS, {"ours": "chat_template"}),
    "a template for chats in a saved model": ([[CONFIG, "set", {"chat_template": "{{ messages }}"}]], HERE_HE_IS),
    "messages of chats": ([[BERT, "write", {**SAVED, "modality_config": {**SAVED["modality_config"], "message": {"method": "forward", "method_output_name": "last_hidden_state"}}}]], HERE_HE_IS, {"ours": "message"}),
    "a similarity of another kind of model": ([["config_sentence_transformers.json", "set", {"similarity_fn_name": "maxsim"}]], HERE_HE_IS, {"ours": "maxsim"}),
    "a length for queries": ([[BERT, "write", {**SAVED, "query_length": 8}]], [LONG]),
    "a length for queries beside one for each call": ([[BERT, "write", {**calls(max_length=12), "query_length": 8}]], [LONG]),
    "a length for queries above the tokenizer's": ([[BERT, "write", {"max_seq_length": 10, "query_length": 20}]], [LONG]),
    "a length for queries, nothing truncated": ([[BERT, "write", {**calls(truncation=False), "query_length": 5}]], [LONG]),
    "a length for queries, null for each call": ([[BERT, "write", {**calls(max_length=None), "query_length": 5}]], [LONG]),
    "queries expanded": ([[BERT, "write", {**SAVED, "query_expansion": {"strategy": "fixed", "length": 8}}]], [LONG], {"ours": "query_expansion"}),
    "prompts null": ([["config_sentence_transformers.json", "set", {"prompts": {"query": None}}]], HERE_HE_IS),
}


def edit(directory, file, what, *values):
    path = directory / file
    if what == "remove":
        path.unlink()
    elif what == "write":
        path.write_text(json.dumps(values[0]))
    elif what == "set":
        fields = json.loads(path.read_text())
        fields.update(values[0])
        path.write_text(json.dumps(fields))
    elif what == "path":
        whole = json.loads(path.read_text())
        keys, value = values
        place = whole
        for key in keys[:-1]:
            place = place[key]
        if keys[-1] == "+":
            place.append(value)
        elif value == "-":
            del place[keys[-1]]
        else:
            place[keys[-1]] = value
        path.write_text(json.dumps(whole))
    elif what == "grow":
        weights = load_file(directory / "model.safetensors")
        name = "embeddings.word_embeddings.weight"
        rows, width = weights[name].shape
        new = np.sin(np.arange(values[0] * width, dtype=np.float32)).reshape(values[0], width)
        weights[name] = np.concatenate([weights[name], new])
        save_file(weights, directory / "model.safetensors", {"format": "pt"})
        edit(directory, "config.json", "set", {"vocab_size": rows + values[0]})


def reference(directory, texts):
    """The ids and the embedding of each text, one at a time, in float64."""
    model = SentenceTransformer(str(directory), device="cpu").double()
    prompt = model.prompts[model.default_prompt_name] if model.default_prompt_name else ""
    features = [model[0].preprocess([text], prompt=prompt or None) for text in texts]
    ids = [one["input_ids"][one["attention_mask"] == 1].tolist() for one in features]
    with torch.no_grad():
        both = [[encode([text])[0] for text in texts] for encode in (model.encode, model.encode_query)]
    return ids, *([[round(float(x), 9) for x in row] for row in rows] for rows in both)


def main():
    out = []
    only = sys.argv[1:]
    for name, (edits, texts, *more) in CASES.items():
        if only and name not in only:
            continue
        case = {"name": name, "edits": edits, "texts": texts, **(more[0] if more else {})}
        with tempfile.TemporaryDirectory() as work:
            directory = Path(work) / "model"
            shutil.copytree(HERE / "tiny", directory)
            for one in edits:
                edit(directory, *copy.deepcopy(one))
            try:
                case["ids"], case["embeddings"], case["queries"] = reference(directory, texts)
            except Exception as error:  # noqa: BLE001
                case["refused"] = f"{type(error).__name__}: {error}".split("\n")[0].replace(work, "…")[:200]
        print(name, "|", case.get("refused") or [ids[:8] for ids in case["ids"]], flush=True)
        out.append(case)
    if not only:
        path = HERE / "directories.json"
        path.write_text(json.dumps(out, ensure_ascii=True, separators=(",", ":")).replace('{"name"', '\n{"name"') + "\n")


if __name__ == "__main__":
    main()
