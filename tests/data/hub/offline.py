"""Writes offline.json and listing.json: what sentence-transformers 6.2.0 loads from a cache that a download of a whole repository left,
without a network, where a file is missing.

    python offline.py
"""

import json
import os
import shutil
import tempfile
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

from huggingface_hub._tree_cache import TreeCacheEntry, write_tree_cache
from sentence_transformers import SentenceTransformer

HERE = Path(__file__).parent
TINY = HERE.parent / "tiny"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
TEXTS = ["hi", "The man is here. " * 20]
MODULES = ["modules.json", "1_Pooling/config.json", "config_sentence_transformers.json", "sentence_bert_config.json"]
MISSING = [
    [],
    ["config_sentence_transformers.json"],
    ["sentence_bert_config.json"],
    ["tokenizer_config.json"],
    ["special_tokens_map.json", "vocab.txt"],
    ["tokenizer.json"],
    ["config_sentence_transformers.json", "sentence_bert_config.json", "tokenizer_config.json"],
    MODULES,
]


def load(missing, revision):
    with tempfile.TemporaryDirectory() as cache:
        repo = Path(cache, "models--org--tiny")
        snapshot = repo / "snapshots" / COMMIT
        shutil.copytree(TINY, snapshot)
        (snapshot / ".gitattributes").touch()
        for name in missing:
            (snapshot / name).unlink()
        if "1_Pooling/config.json" in missing:
            (snapshot / "1_Pooling").rmdir()
        (repo / "refs").mkdir()
        (repo / "refs" / "main").write_text(COMMIT)
        model = SentenceTransformer("org/tiny", device="cpu", cache_folder=cache, revision=revision)
        return [[round(float(x), 7) for x in row] for row in model.encode(TEXTS)]


def listing():
    files = [path for path in sorted(TINY.rglob("*")) if path.is_file()]
    entries = {
        path.relative_to(TINY).as_posix(): TreeCacheEntry(size=path.stat().st_size, blob_id="0" * 40) for path in files
    }
    with tempfile.TemporaryDirectory() as folder:
        write_tree_cache(folder, COMMIT, entries)
        shutil.copy(Path(folder, "trees", f"{COMMIT}.json"), HERE / "listing.json")


def main():
    cases = []
    for missing in MISSING:
        embeddings = load(missing, None)
        assert embeddings == load(missing, COMMIT)
        cases.append({"missing": missing, "embeddings": embeddings})
    rows = ",\n".join("  " + json.dumps(case) for case in cases)
    (HERE / "offline.json").write_text(f'{{\n "texts": {json.dumps(TEXTS)},\n "cases": [\n{rows}\n ]\n}}\n')
    listing()


main()
