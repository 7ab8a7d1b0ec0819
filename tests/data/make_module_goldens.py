"""Writes what sentence-transformers makes of the modules that may follow the pooling of tiny/: every activation of `Dense`, its
residual paths, `LayerNorm`, `Dropout`, and some of them in a row.

    pip install -r requirements.txt
    python make_module_goldens.py         # needs no network; rewrites the files below in place

modules/<name>/                  a module with random weights, as it saves itself
modules.json                     `pipelines`: for each the modules that follow tiny's pooling, with their classes; versions, seed
modules.safetensors              <pipeline>   [texts, D']   of goldens.json's texts, float64; not normalised unless a module does it
"""

import json
import os
import shutil
from pathlib import Path

os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", TRANSFORMERS_VERBOSITY="error", TQDM_DISABLE="1")

import numpy as np
import torch
from make_goldens import HIDDEN, TEXTS, TINY, VERSIONS, load_tiny, normal, write_json
from safetensors.torch import save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense, Dropout, LayerNorm, Normalize

DATA = Path(__file__).resolve().parent
SEED = 20204
# name → (activation, width, has a bias, has a residual path)
DENSE = {
    "sigmoid": (torch.nn.Sigmoid(), 6, True, False),
    "silu": (torch.nn.SiLU(), 6, False, False),
    "leaky_relu": (torch.nn.LeakyReLU(), 6, True, False),
    "tanh": (torch.nn.Tanh(), 6, True, False),
    "gelu": (torch.nn.GELU(), 6, True, False),
    "relu": (torch.nn.ReLU(), 6, False, False),
    "identity": (torch.nn.Identity(), 6, True, False),
    "residual": (torch.nn.Tanh(), HIDDEN, True, True),
    "residual_projected": (torch.nn.SiLU(), 8, False, True),
}
PIPELINES = {name: [name] for name in DENSE} | {
    "layer_norm": ["layer_norm"],
    "in_a_row": ["layer_norm", "dropout", "residual", "residual_projected", "narrow_norm", "normalize"],
}


def modules(rng):
    for name, (activation, width, bias, residual) in DENSE.items():
        dense = Dense(HIDDEN, width, bias, activation, use_residual=residual)
        for parameter in dense.parameters():
            parameter.copy_(normal(rng, parameter.shape, 0.4))
        yield name, dense
    for name, width in (("layer_norm", HIDDEN), ("narrow_norm", 8)):
        norm = LayerNorm(width)
        norm.norm.weight.copy_(normal(rng, (width,), 0.3, mean=1.0))
        norm.norm.bias.copy_(normal(rng, (width,), 0.3))
        yield name, norm
    yield "dropout", Dropout(0.2)
    yield "normalize", Normalize()


@torch.inference_mode()
def main():
    torch.set_num_threads(1)
    made = dict(modules(np.random.default_rng(SEED)))
    shutil.rmtree(DATA / "modules", ignore_errors=True)
    for name, module in made.items():
        (DATA / "modules" / name).mkdir(parents=True)
        module.save(str(DATA / "modules" / name))

    tensors, largest, worst = {}, 0.0, 0.0
    for pipeline, names in PIPELINES.items():
        found = []
        for dtype in (torch.float64, torch.float32):
            loaded = [type(made[name]).load(str(DATA / "modules" / name)) for name in names]
            model = SentenceTransformer(modules=[*list(load_tiny())[:2], *loaded], device="cpu").to(dtype).eval()
            found.append(model.encode(TEXTS, convert_to_tensor=True, show_progress_bar=False).double())
        tensors[pipeline] = found[0].contiguous()
        largest = max(largest, found[0].abs().max().item())
        worst = max(worst, (found[0] - found[1]).abs().max().item())
    save_file(tensors, DATA / "modules.safetensors", metadata={"versions": json.dumps(VERSIONS)})
    pipelines = {
        pipeline: [{"name": name, "class": f"{type(made[name]).__module__}.{type(made[name]).__name__}"} for name in names]
        for pipeline, names in PIPELINES.items()
    }
    write_json(DATA / "modules.json", {"versions": VERSIONS, "seed": SEED, "pipelines": pipelines})
    print(f"values up to {largest:.1f}; float32 is within {worst:.1e} of float64")


if __name__ == "__main__":
    main()
