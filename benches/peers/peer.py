"""One runtime as a process: reads names of cases from standard input, makes one call for each and prints its seconds.

    python peer.py NAME MODEL_DIR TEXTS_JSON THREADS

NAME is one of the keys of PEERS below. TEXTS_JSON is what `throughput --print-texts` printed.
"""

import json
import os
import sys
import time


def torch_f32(model, threads):
    """sentence-transformers on PyTorch, as its documentation calls it."""
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(threads)
    encoder = SentenceTransformer(model, device="cpu")
    return lambda texts: encoder.encode(texts, batch_size=32, show_progress_bar=False)


PEERS = {"torch-f32": torch_f32}


def main():
    name, model, texts, threads = sys.argv[1:]
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["TOKENIZERS_PARALLELISM"] = "true"
    with open(texts, encoding="utf-8") as file:
        cases = json.load(file)
    encode = PEERS[name](model, int(threads))
    print("ready", flush=True)
    for line in sys.stdin:
        start = time.perf_counter()
        encode(cases[line.strip()])
        print(time.perf_counter() - start, flush=True)


if __name__ == "__main__":
    main()
