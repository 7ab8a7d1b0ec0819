"""This crate beside other runtimes, in one run: same weights, same texts, same number of threads, taking turns.

    python benches/peers/compare.py --model DIR [--threads 2] [--rounds 5] [--peers torch-f32,onnxruntime-f32,…] [--cases query,…]

Sets up a virtual environment with the pinned requirements (in `target/peers`, or the one that VIRTUAL_ENV names),
builds the example `throughput`, starts every runtime once as a process of its own and lets them take turns, case by
case. Prints a Markdown table: for each case the median of every runtime and, as `ours ×`, the median over the rounds of
its time divided by ours, with the smallest and the largest such ratio.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
PAUSE = 0.3
CASES = ["query", "short128", "long384", "batch32x128", "mixed512"]


class Runtime:
    def __init__(self, name, command):
        self.name = name
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def line(self):
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"{self.name} ended with code {self.process.wait()}")
        return line.strip()

    def seconds(self, case):
        # The threads of the runtime that had its turn before may still be spinning, waiting for work.
        time.sleep(PAUSE)
        self.process.stdin.write(case + "\n")
        self.process.stdin.flush()
        return float(self.line())


def python():
    """The interpreter of a virtual environment with the requirements."""
    directory = pathlib.Path(os.environ.get("VIRTUAL_ENV") or ROOT / "target" / "peers")
    interpreter = directory / "bin" / "python"
    done = directory / "requirements-installed"
    if "VIRTUAL_ENV" not in os.environ and not done.exists():
        subprocess.run([sys.executable, "-m", "venv", directory], check=True)
        subprocess.run(
            [interpreter, "-m", "pip", "install", "--quiet", "-r", HERE / "requirements.txt"], check=True
        )
        done.touch()
    return str(interpreter)


def cell(ours, theirs):
    ratios = [t / o for o, t in zip(ours, theirs)]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peers", default="torch-f32,onnxruntime-f32,openvino-f32")
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--precision", default="f32")
    parser.add_argument("--isa", help="force an instruction set of ours")
    options = parser.parse_args()

    subprocess.run(["cargo", "build", "--quiet", "--release", "--example", "throughput"], cwd=ROOT, check=True)
    flags = ["--model", options.model, "--threads", str(options.threads), "--precision", options.precision]
    flags += ["--isa", options.isa] if options.isa else []
    throughput = [str(ROOT / "target/release/examples/throughput"), *flags]
    with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as texts:
        printed = subprocess.run([*throughput, "--print-texts"], check=True, capture_output=True, text=True).stdout
        texts.write(printed)
        texts.flush()
        ours = Runtime("mpnet", [*throughput, "--serve"])
        peers = []
        for name in options.peers.split(","):
            command = [python(), str(HERE / "peer.py"), name, options.model, texts.name, str(options.threads)]
            peers.append(Runtime(name, command))
            peers[-1].line()

        cases = json.loads(printed)
        print("| case | mpnet, s | " + " | ".join(f"{peer.name}, s | ours ×" for peer in peers) + " |")
        print("|---" * (2 + 2 * len(peers)) + "|")
        for case in options.cases.split(","):
            assert case in cases, f"there is no case {case}"
            # The first round warms up and does not count. Short calls are repeated until the medians settle.
            rounds = options.rounds * (10 if case == "query" else 1)
            times = {runtime: [] for runtime in [ours, *peers]}
            for _ in range(rounds + 1):
                for runtime, seconds in times.items():
                    seconds.append(runtime.seconds(case))
            times = {runtime: seconds[1:] for runtime, seconds in times.items()}
            row = [case, f"{statistics.median(times[ours]):.4f}"]
            for peer in peers:
                row += [f"{statistics.median(times[peer]):.4f}", cell(times[ours], times[peer])]
            print("| " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    main()
