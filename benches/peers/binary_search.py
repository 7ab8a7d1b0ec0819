"""Exact search over bits, this crate beside faiss (`IndexBinaryFlat`): same bits, same queries, same number of threads, taking turns.

    pip install -r benches/peers/requirements.txt      # of which faiss-cpu is enough
    python benches/peers/binary_search.py [--rows 10000000] [--queries 100] [--bits 768] [--top-k 10] [--threads 2] [--rounds 3]

Both make the bits from the same generator; that the distances found for the first query agree is checked. Prints both medians in
seconds and, as `ours ×`, the median over the rounds of faiss's time divided by ours, with the smallest and the largest.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import time

import faiss
import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent


def random_bytes(start, count):
    """The low bytes of SplitMix64 from seed 1, numbers `start` to `start + count`."""
    with np.errstate(over="ignore"):
        z = np.uint64(1) + np.arange(start + 1, start + count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return (z ^ (z >> np.uint64(31))).astype(np.uint8)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for flag, default in [("rows", 10_000_000), ("queries", 100), ("bits", 768), ("top-k", 10), ("threads", 2), ("rounds", 3)]:
        parser.add_argument(f"--{flag}", type=int, default=default)
    options = parser.parse_args()
    rows, width = options.rows, (options.bits + 7) // 8
    flags = ["--bits", "--rounds", "1", "--rows", str(rows), "--queries", str(options.queries)]
    flags += ["--width", str(options.bits), "--top-k", str(options.top_k)]
    command = ["cargo", "bench", "--quiet", "--bench", "search", "--", *flags]
    environment = {**os.environ, "RAYON_NUM_THREADS": str(options.threads)}
    faiss.omp_set_num_threads(options.threads)

    index = faiss.IndexBinaryFlat(8 * width)
    step = 1 << 20
    for start in range(0, rows, step):
        count = min(step, rows - start)
        index.add(random_bytes(start * width, count * width).reshape(count, width))
    queries = random_bytes(rows * width, options.queries * width).reshape(-1, width)

    ours, theirs = [], []
    for _ in range(options.rounds):
        printed = subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True).stdout
        found = json.loads(printed.strip().splitlines()[-1])
        ours.append(found["seconds_median"])
        begin = time.perf_counter()
        distances, _ = index.search(queries, options.top_k)
        theirs.append(time.perf_counter() - begin)
        assert found["distances"] == distances[0].tolist(), (found["distances"], distances[0])
    ratios = [t / o for o, t in zip(ours, theirs)]
    print(f"{rows} × {options.bits} bits, {options.queries} queries, {options.threads} threads")
    print(f"mpnet {statistics.median(ours):.3f} s, faiss {faiss.__version__} {statistics.median(theirs):.3f} s")
    print(f"ours × {statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})")


if __name__ == "__main__":
    main()
