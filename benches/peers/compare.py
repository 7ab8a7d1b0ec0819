"""This crate beside other runtimes, in one run: same weights, same texts, same number of threads, taking turns.

    python benches/peers/compare.py --model DIR [--threads 2] [--rounds 5] [--peers torch-f32,onnxruntime-f32,…]
                                    [--cases query,…,load,memory] [--precision P] [--isa NAME] [--accuracy]

That is all: it sets up a virtual environment with the pinned requirements (in `target/peers`, or the one that VIRTUAL_ENV
names), exports the model for the runtimes that need it, builds the example `throughput` and, if asked for, the peer in
`candle/`.

Starts every runtime once as a process of its own and lets them take turns, case by case. Prints a Markdown table: for each
case the median of every runtime and, as `ours ×`, the median over the rounds of its time divided by ours, with the
smallest and the largest such ratio.

The cases `load` and `memory` make a second table, of new processes, the files in the page cache: seconds from the start of
one to its first embedding (of ours, to its end), and the most memory that it had resident, mapped files included. With
`--accuracy` there is a table of how far each runtime's vectors are from those of the real all-mpnet-base-v2 in float64, over
the 24 texts of tests/data.

`--isa avx2` or `avx512` restricts our instructions, and those of the others as far as they can be; whom it cannot restrict it
names.
"""

import argparse
import json
import math
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
GOLDENS = ROOT / "tests/data/all-mpnet-base-v2/golden_fp64.json"
PAUSE = 0.3
CASES = ["query", "short128", "long384", "batch32x128", "mixed512"]
STARTS = ["load", "memory"]
PEERS = [
    "torch-f32",
    "torch-bf16",
    "onnxruntime-f32",
    "onnxruntime-int8",
    "openvino-f32",
    "openvino-bf16",
    "openvino-int8",
    "candle-f32",
]
# More than any f32 runtime is off by rounding, and less than any wrong weight, token or formula.
F32_PROMISE = 1e-4

# oneDNN, in PyTorch and OpenVINO, and PyTorch's own kernels. oneMKL, which PyTorch asks for f32 products, heeds its variable
# on Intel's processors only.
RESTRICTIONS = {
    "avx2": {
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "ATEN_CPU_CAPABILITY": "avx2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    },
    "avx512": {
        "ONEDNN_MAX_CPU_ISA": "AVX512_CORE_FP16",
        "ATEN_CPU_CAPABILITY": "avx512",
        "MKL_ENABLE_INSTRUCTIONS": "AVX512",
    },
}
UNRESTRICTED = {
    "onnxruntime": "its kernels, MLAS, ask the processor alone",
    "openvino-f32": "most of its f32 products are by MLAS, which asks the processor alone",
    "candle": "its kernels, gemm, ask the processor alone",
}


class Runtime:
    """A process that answers requests, one a line."""

    def __init__(self, name, command, environment):
        self.name = name
        self.command = command
        self.environment = environment
        self.process = None

    def start(self, *arguments):
        command = [*self.command, *arguments]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=self.environment
        )

    def stop(self):
        self.process.stdin.close()
        self.process.wait()

    def line(self):
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"{self.name} ended with code {self.process.wait()}")
        return line.strip()

    def ask(self, request):
        self.process.stdin.write(request + "\n")
        self.process.stdin.flush()
        return self.line()

    def seconds(self, case):
        # The threads of the runtime that had its turn before may still be spinning, waiting for work.
        time.sleep(PAUSE)
        return float(self.ask(case))


class Peer(Runtime):
    def serve(self):
        self.start()
        line = self.line()
        assert line == "ready", f"{self.name} says {line}"

    def vectors(self):
        return json.loads(self.ask("vectors golden"))

    def first_embedding(self):
        self.serve()
        self.ask("query")


class Ours(Runtime):
    """The example `throughput`, and for vectors `encode`, with the same flags."""

    def __init__(self, name, flags):
        super().__init__(name, [str(example("throughput")), *flags], dict(os.environ))
        self.flags = flags

    def texts(self):
        """The texts of each case."""
        printed = subprocess.run([*self.command, "--print-texts"], check=True, capture_output=True, text=True)
        return json.loads(printed.stdout)

    def serve(self):
        self.start("--serve")

    def vectors(self):
        with tempfile.NamedTemporaryFile("w", suffix=".jsonl", encoding="utf-8") as texts:
            texts.writelines(json.dumps(text) + "\n" for text in goldens()[0])
            texts.flush()
            encode = [str(example("encode")), *self.flags, "--input", texts.name]
            printed = subprocess.run(encode, check=True, capture_output=True, text=True).stdout
        return [json.loads(line) for line in printed.splitlines()]

    def first_embedding(self, *arguments):
        self.start("--first-embedding", *arguments)
        self.process.stdout.read()


def environment_directory():
    return pathlib.Path(os.environ.get("VIRTUAL_ENV") or ROOT / "target" / "peers")


def python():
    """The interpreter of a virtual environment with the requirements."""
    directory = environment_directory()
    interpreter = directory / "bin" / "python"
    requirements = HERE / "requirements.txt"
    done = directory / "requirements-installed"
    if "VIRTUAL_ENV" not in os.environ and not (done.exists() and done.read_text() == requirements.read_text()):
        subprocess.run([sys.executable, "-m", "venv", directory], check=True)
        subprocess.run([interpreter, "-m", "pip", "install", "--quiet", "-r", requirements], check=True)
        done.write_text(requirements.read_text())
    return str(interpreter)


def candle():
    """The program of the peer `candle-f32`."""
    target = environment_directory() / "peers" / "candle"
    manifest = HERE / "candle" / "Cargo.toml"
    build = ["cargo", "build", "--quiet", "--release", "--locked", "--manifest-path", manifest]
    subprocess.run([*build, "--target-dir", target], check=True)
    return str(target / "release" / "peer-candle")


def example(name):
    build = ["cargo", "build", "--quiet", "--release", "--example", name, "--target-dir", ROOT / "target"]
    subprocess.run(build, cwd=ROOT, check=True)
    return ROOT / "target/release/examples" / name


def peer(name, options, texts, environment):
    arguments = [options.model, texts]
    if name == "candle-f32":
        environment = {**environment, "RAYON_NUM_THREADS": str(options.threads)}
        return Peer(name, [candle(), *arguments], environment)
    return Peer(name, [python(), str(HERE / "peer.py"), name, *arguments, str(options.threads)], environment)


def goldens():
    cases = json.loads(GOLDENS.read_text(encoding="utf-8"))["cases"]
    return [case["text"] for case in cases], [case["embedding"] for case in cases]


def ratio(ours, theirs):
    ratios = [t / o for o, t in zip(ours, theirs)]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})"


def print_row(cells):
    print("| " + " | ".join(cells) + " |", flush=True)


def print_head(cells):
    print()
    print_row(cells)
    print("|---" * len(cells) + "|", flush=True)


def cosine(a, b):
    def dot(a, b):
        return math.fsum(x * y for x, y in zip(a, b, strict=True))

    return dot(a, b) / math.sqrt(dot(a, a) * dot(b, b))


def accuracy(runtimes):
    _, wanted = goldens()
    print_head(["24 texts", "lowest cosine to float64", "1 − it", "largest difference of a component"])
    for runtime in runtimes:
        vectors = runtime.vectors()
        assert len(vectors) == len(wanted)
        lowest = min(map(cosine, vectors, wanted))
        largest = max(abs(a - b) for row, want in zip(vectors, wanted) for a, b in zip(row, want))
        print_row([runtime.name, f"{lowest:.5f}", f"{1 - lowest:.0e}", f"{largest:.1e}"])
        if runtime.name.endswith("-f32") and not largest < F32_PROMISE:
            sys.exit(f"{runtime.name} does not compute this model: {largest:.1e} is more than rounding")


def turns(case, rounds, runtimes):
    """The seconds of each runtime in each round. The first round warms up and does not count."""
    times = [[runtime.seconds(case) for runtime in runtimes] for _ in range(rounds + 1)]
    return list(zip(*times[1:]))


def compare(cases, rounds, ours, peers):
    print_head(["case", f"{ours.name}, s", *(cell for peer in peers for cell in (f"{peer.name}, s", "ours ×"))])
    for case in cases:
        # Short calls are repeated until the medians settle; one call of the longest takes half a minute, and settles itself.
        repeats = {"query": rounds * 10, "mixed512": min(rounds, 2)}.get(case, rounds)
        mine, *others = turns(case, repeats, [ours, *peers])
        row = [case, f"{statistics.median(mine):.4f}"]
        for theirs in others:
            row += [f"{statistics.median(theirs):.4f}", ratio(mine, theirs)]
        print_row(row)


def start(runtime, *arguments):
    """Seconds to the first embedding of a new process, and the most bytes that it had resident."""
    time.sleep(PAUSE)
    begin = time.perf_counter()
    runtime.first_embedding(*arguments)
    seconds = time.perf_counter() - begin
    runtime.process.stdin.close()
    _, status, usage = os.wait4(runtime.process.pid, 0)
    runtime.process.returncode = os.waitstatus_to_exitcode(status)
    if runtime.process.returncode != 0:
        sys.exit(f"{runtime.name} ended with code {runtime.process.returncode}")
    # In kilobytes on Linux, in bytes on macOS.
    return seconds, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def compare_starts(rounds, ours, peers):
    print_head(["a new process", "to its first embedding, s", "ours ×", "peak memory, MB", "ours ×"])
    with tempfile.TemporaryDirectory() as directory:
        packed = ["--packed-cache", os.path.join(directory, "packed.bin")]
        candidates = {ours.name: (ours,), f"{ours.name}, packed cache": (ours, *packed)}
        candidates |= {peer.name: (peer,) for peer in peers}
        # The first round brings the files into the page cache, writes the packed one, and does not count.
        measured = [[start(*candidate) for candidate in candidates.values()] for _ in range(rounds + 1)]
    columns = [list(zip(*column)) for column in zip(*measured[1:])]
    for name, (seconds, memory) in zip(candidates, columns):
        row = [name, f"{statistics.median(seconds):.2f}", ratio(columns[0][0], seconds)]
        print_row([*row, f"{statistics.median(memory) / 1e6:.0f}", ratio(columns[0][1], memory)])


def read_options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peers", default="torch-f32,onnxruntime-f32,openvino-f32", help=", ".join(PEERS))
    parser.add_argument("--cases", default=",".join(CASES), help=", ".join(CASES + STARTS))
    parser.add_argument("--precision", default="f32", help="of ours: f32, bf16 or int8")
    parser.add_argument("--isa", help="restrict the instructions: avx2 or avx512; any other name restricts ours alone")
    parser.add_argument("--accuracy", action="store_true", help="compare with float64, for the real all-mpnet-base-v2")
    options = parser.parse_args()
    options.peers = [name for name in options.peers.split(",") if name]
    options.cases = [name for name in options.cases.split(",") if name]
    for name in options.peers:
        if name not in PEERS:
            parser.error(f"there is no peer {name}; there are {', '.join(PEERS)}")
    for name in options.cases:
        if name not in CASES + STARTS:
            parser.error(f"there is no case {name}; there are {', '.join(CASES + STARTS)}")
    return options


def restrict(options):
    """The environment of the peers; says whom it cannot restrict."""
    if not options.isa:
        return dict(os.environ)
    variables = RESTRICTIONS.get(options.isa)
    if variables is None:
        print(f"{options.isa}: only ours is restricted")
        return dict(os.environ)
    for name in options.peers:
        for prefix, why in UNRESTRICTED.items():
            if name.startswith(prefix):
                print(f"{name} is not restricted to {options.isa}: {why}")
    return {**os.environ, **variables}


def main():
    options = read_options()
    environment = restrict(options)
    flags = ["--model", options.model, "--threads", str(options.threads), "--precision", options.precision]
    flags += ["--isa", options.isa] if options.isa else []
    ours = Ours(f"mpnet-{options.precision}", flags)
    with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as texts:
        json.dump({**ours.texts(), "golden": goldens()[0]}, texts)
        texts.flush()
        peers = [peer(name, options, texts.name, environment) for name in options.peers]
        runtimes = [ours, *peers]
        for runtime in runtimes:
            runtime.serve()
        if options.accuracy:
            accuracy(runtimes)
        served = [case for case in options.cases if case in CASES]
        if served:
            compare(served, options.rounds, ours, peers)
        for runtime in runtimes:
            runtime.stop()
        if served != options.cases:
            compare_starts(options.rounds, ours, peers)


if __name__ == "__main__":
    main()
