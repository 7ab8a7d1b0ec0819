"""Compares the embeddings of two builds of the example `encode`, bit by bit, over the 24 golden texts.

    python3 benches/same_bits.py OLD NEW --model DIR

OLD and NEW are the two programs. Prints a line for each instruction set and precision, and fails if a bit differs.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

GOLDENS = pathlib.Path(__file__).parent.parent / "tests/data/all-mpnet-base-v2/golden_fp64.json"
TIERS = ["scalar", "avx2", "avx512", "amx"]
PRECISIONS = ["f32", "bf16", "int8"]


def embeddings(program, model, tier, precision, texts, folder):
    """The bytes that the program writes; None if the machine does not have the tier."""
    output = pathlib.Path(folder) / "embeddings.safetensors"
    command = [program, "--model", model, "--isa", tier, "--precision", precision, "--input", texts, "--output", output]
    run = subprocess.run(command, capture_output=True, text=True)
    if run.returncode != 0:
        if tier in run.stderr and "not available" in run.stderr:
            return None
        sys.exit(f"{program} on {tier} in {precision}: {run.stderr.strip()}")
    return output.read_bytes()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old")
    parser.add_argument("new")
    parser.add_argument("--model", required=True)
    options = parser.parse_args()
    differ = False
    with tempfile.TemporaryDirectory() as folder:
        texts = pathlib.Path(folder) / "texts.jsonl"
        cases = json.loads(GOLDENS.read_text(encoding="utf-8"))["cases"]
        texts.write_text("".join(json.dumps(case["text"]) + "\n" for case in cases), encoding="utf-8")
        for tier in TIERS:
            for precision in PRECISIONS:
                old, new = (
                    embeddings(program, options.model, tier, precision, texts, folder)
                    for program in (options.old, options.new)
                )
                said = "not on this machine" if old is None and new is None else "the same" if old == new else "DIFFERENT"
                differ |= said == "DIFFERENT"
                print(f"{tier:7} {precision:5} {said}", flush=True)
    sys.exit(differ)


if __name__ == "__main__":
    main()
