"""Loads into Python's sentence-transformers what this crate saves, and compares the vectors.

    pip install -r tests/data/requirements.txt
    python tests/save_pretrained.py

or with any sentence-transformers from 3 and torch from 1.13 on; `.ci/python` makes an environment of old ones.

Saves tests/data/tiny, as it is and with a Dense module, by `cargo run --example save_pretrained` as f32, f16 and bf16.
Each is loaded by sentence-transformers, which computes in float32, and must give

- the vectors that it gives for the model that was saved: the same to the last bit as f32; and as f16 and bf16 those of
  that model with its weights rounded by torch, again to the last bit;
- the vectors that this crate gives for it, within 1e-6 a component.
"""

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", TRANSFORMERS_VERBOSITY="error", TQDM_DISABLE="1")
CPUINFO = Path("/proc/cpuinfo")
if CPUINFO.exists() and "amx_tile" in CPUINFO.read_text():
    # Products of bf16 pairs are further off than what is compared here, which is what was saved.
    os.environ.setdefault("MPNET_ISA", "avx512")

import numpy as np
import torch
from safetensors import safe_open
from sentence_transformers import SentenceTransformer

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "tests" / "data"
TEXTS = ["world", "The weather is lovely today.", "", "Naïve café in Zürich — 東京, Привет!", "the man " * 60]
DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}


def example(name, *arguments, **options):
    command = ["cargo", "run", "--quiet", "--example", name, "--", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, **options).stdout


def load(directory):
    arguments = {"attn_implementation": "eager"}
    # Some versions load weights in the type of the file, which `float` widens without a change; others widen by themselves.
    return SentenceTransformer(str(directory), device="cpu", model_kwargs=arguments).float()


def rounded(model, dtype):
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype).float()
    return model


def with_dense(directory, old):
    """A copy of tiny with a Dense module before the last, which if `old` has only the fields that all versions know."""
    shutil.copytree(DATA / "tiny", directory)
    shutil.copytree(DATA / "tiny_dense" / "2_Dense_gelu", directory / "2_Dense")
    if old:
        config = json.loads((directory / "2_Dense" / "config.json").read_text())
        config = {key: value for key, value in config.items() if not key.startswith("module_")}
        (directory / "2_Dense" / "config.json").write_text(json.dumps(config))
    modules = json.loads((directory / "modules.json").read_text())
    modules.insert(2, modules[2] | {"path": "2_Dense", "type": "sentence_transformers.models.Dense"})
    modules[3]["path"] = "3_Normalize"
    for idx, module in enumerate(modules):
        module |= {"idx": idx, "name": str(idx)}
    (directory / "modules.json").write_text(json.dumps(modules))
    return directory


@torch.inference_mode()
def check(source, reference, name, directory):
    """`reference`: the model of `source` as any version of sentence-transformers can read it."""
    saved = directory / name
    example("save_pretrained", "--model", source, "--output", saved, "--dtype", name, "--prompt", "sts=same: ")
    for path in saved.rglob("model.safetensors"):
        with safe_open(path, "pt") as file:
            assert all(file.get_tensor(key).dtype == DTYPES[name] for key in file.keys()), path
    loaded = load(saved)
    assert loaded.max_seq_length == 48
    assert loaded.prompts == load(reference).prompts | {"sts": "same: "}
    got = loaded.encode(TEXTS)
    want = rounded(load(reference), DTYPES[name]).encode(TEXTS)
    assert np.array_equal(got, want), np.abs(got - want).max()
    lines = "".join(json.dumps(text) + "\n" for text in TEXTS)
    (directory / "texts.jsonl").write_text(lines)
    ours = example("encode", "--model", saved, "--input", directory / "texts.jsonl")
    ours = np.array([json.loads(line) for line in ours.splitlines()])
    assert ours.shape == got.shape and np.abs(ours - got).max() < 1e-6, np.abs(ours - got).max()
    # As the file says, which torch may compute in half precision: it must load.
    assert SentenceTransformer(str(saved), device="cpu").encode(TEXTS).shape == got.shape
    print(f"{source.name} as {name}: the same vectors; {np.abs(ours - got).max():.1e} from this crate's")


def main():
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as directory:
        directory = Path(directory)
        dense = [with_dense(directory / name, old) for name, old in (("with_dense", False), ("old", True))]
        for source, reference in ((DATA / "tiny", DATA / "tiny"), dense):
            (directory / source.name / "saved").mkdir(parents=True)
            for name in DTYPES:
                check(source, reference, name, directory / source.name / "saved")


if __name__ == "__main__":
    main()
