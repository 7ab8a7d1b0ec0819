"""Runs every example on the real weights and checks that it shows what it is to show. `.ci/run` calls it.

    python3 .ci/examples.py [NAME...]      # all, or some

Needs what `cargo run --release --example fetch_model` leaves in the cache, and nothing but Python's standard library.
"""

import json
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "examples" / "data"
TINY = ROOT / "tests" / "data" / "tiny"
CARGO = ["cargo", "run", "--release", "--quiet"]
# Examples that need a feature.
FEATURES = {"from_hub": ["--features", "hub"]}


def command(name, *flags):
    return [*CARGO, *FEATURES.get(name, []), "--example", name, "--", *map(str, flags)]


def run(name, *flags):
    """The standard output of an example, which must succeed."""
    done = subprocess.run(command(name, *flags), cwd=ROOT, stdout=subprocess.PIPE, text=True)
    print(done.stdout, end="", flush=True)
    assert done.returncode == 0, f"{name} failed"
    return done.stdout


def fails(code, word, name, *flags):
    """An example must end with this code and say why, in one line if it is no misuse."""
    done = subprocess.run(command(name, *flags), cwd=ROOT, capture_output=True, text=True, input="")
    lines = done.stderr.splitlines()
    assert done.returncode == code and word in lines[0], (name, flags, done)
    assert lines[0].startswith("error: ") and len(lines) == (1 if code == 1 else 2), done.stderr
    print(lines[0], flush=True)


def indented(text):
    """`score  text` for each line of that form."""
    return [(float(score), rest.strip()) for score, rest in re.findall(r"^  (\d\.\d{4})  (.*)$", text, re.MULTILINE)]


def falling(pairs):
    scores = [float(score) for score, *_ in pairs]
    return scores == sorted(scores, reverse=True)


def semantic_search(work):
    """The article's question over its four sentences, which others stand beside."""
    hits = indented(run("semantic_search"))
    assert len(hits) == 5 and falling(hits)
    assert hits[0] == (0.4163, "a man is eating food"), hits[0]
    every = run("semantic_search", "--top", 12)
    assert every.startswith("a man is sitting at a table, what is he doing?\n")
    for text in ("a man is eating food", "a girl is holding a baby", "a man is riding a horse", "a woman is playing the violin"):
        assert f"  {text}\n" in every, text
    fails(1, "--corpus needs a --query", "semantic_search", "--corpus", DATA / "sentences.txt")
    fails(1, str(work / "none.txt"), "semantic_search", "--corpus", work / "none.txt", "--query", "a")


def encode(work):
    (work / "texts.jsonl").write_text('"one line"\n"two\\nlines"\n')
    output = work / "out.safetensors"
    run("encode", "--input", work / "texts.jsonl", "--output", output)
    data = output.read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    tensor = json.loads(data[8 : 8 + size])["embeddings"]
    assert tensor["dtype"] == "F32" and tensor["shape"] == [2, 768]
    values = struct.unpack("<1536f", data[8 + size :])
    assert abs(sum(x * x for x in values[:768]) - 1) < 1e-5
    done = subprocess.run(command("encode"), cwd=ROOT, input="one line\n", capture_output=True, text=True, check=True)
    # Both print the shortest decimals that are these numbers.
    assert struct.pack("<768f", *json.loads(done.stdout)) == struct.pack("<768f", *values[:768])
    fails(1, str(work / "none"), "encode", "--input", work / "none")
    # More threads than cores work; thousands are refused, since it takes long to start them.
    fails(1, "--threads: is 3000, must be from 1 to ", "encode", "--threads", 3000)
    fails(1, "--threads: is 0, must be from 1 to ", "encode", "--threads", 0)
    few = run("encode", "--model", TINY, "--input", work / "texts.jsonl", "--threads", 1)
    assert run("encode", "--model", TINY, "--input", work / "texts.jsonl", "--threads", 64) == few


def fill_mask(work):
    """A checkpoint in shards: the small encoder of the tests in one, its head in the other."""
    model, names = work / "masked", {}
    model.mkdir()
    for file in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(ROOT / "tests/data/tiny" / file, model)
    shutil.copy(ROOT / "tests/data/tiny/model.safetensors", model / "encoder.safetensors")
    shutil.copy(ROOT / "tests/data/heads/masked_lm.safetensors", model)
    for file in model.glob("*.safetensors"):
        data = file.read_bytes()
        header = json.loads(data[8 : 8 + struct.unpack("<Q", data[:8])[0]])
        names |= {name: file.name for name in header if name != "__metadata__"}
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    text = "The <mask> was in the old house."
    fills = indented(run("fill_mask", "--model", model, "--text", text))
    assert len(fills) == 5 and falling(fills)
    assert fills[0][0] == 0.2350 and fills[0][1].endswith("the 日 was in the old house."), fills[0]
    fails(1, "no masked language model head (`lm_head", "fill_mask")


def save_pretrained(work):
    saved = work / "half"
    run("save_pretrained", "--output", saved, "--dtype", "f16", "--prompt", "sts=same: ")
    assert (saved / "model.safetensors").stat().st_size < 220e6
    assert json.loads((saved / "config_sentence_transformers.json").read_text())["prompts"]["sts"] == "same: "
    # Rounded to 11 bits, and still the same answer, nearly.
    hits = indented(run("semantic_search", "--model", saved, "--top", 1))
    assert hits[0][1] == "a man is eating food" and abs(hits[0][0] - 0.4163) < 0.001, hits
    fails(1, str(saved), "save_pretrained", "--output", saved)
    fails(1, "--output is missing", "save_pretrained")


def fetch_model(work):
    mine = work / "README.md"
    mine.write_text("notes")
    fails(1, str(mine), "fetch_model", "--to", work)
    assert mine.read_text() == "notes"
    directory = Path(run("fetch_model").strip().splitlines()[-1])
    assert (directory / "model.safetensors").stat().st_size == 437_971_872, directory


def from_hub(work):
    """From a cache as Python's huggingface_hub lays it out: what is asked of the hub itself is tested elsewhere."""
    model = Path(run("fetch_model").strip().splitlines()[-1])
    folder, commit = work / "models--sentence-transformers--all-mpnet-base-v2", "0123456789abcdef0123456789abcdef01234567"
    snapshot = folder / "snapshots" / commit
    for file in (file for file in model.rglob("*") if file.is_file()):
        link = snapshot / file.relative_to(model)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(file)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(commit)
    path, embedding = run("from_hub", "--offline", "--cache", work, "--text", "one line").splitlines()
    assert Path(path) == snapshot
    direct = subprocess.run(command("encode"), cwd=ROOT, input="one line\n", capture_output=True, text=True, check=True)
    first = ", ".join(f"{x:.4f}" for x in json.loads(direct.stdout)[:4])
    assert embedding == f"one line: [{first}, …], 768 components", embedding
    fails(1, "some/model", "from_hub", "--offline", "--cache", work, "--model", "some/model")


def groups(text):
    """The size and the printed texts of each group."""
    found = re.findall(r"^group \d+: (\d+) texts\n((?:  .*\n)+)", text, re.MULTILINE)
    return [(int(size), [line.strip().lower() for line in lines.splitlines()]) for size, lines in found]


def clustering(work):
    """Captions of photographs: those of the commonest subjects are groups of their own."""
    picture = work / "clusters.svg"
    found = groups(run("clustering", "--output", picture))
    assert len(found) == 10 and sum(size for size, _ in found) == 1428
    subjects = {s for s in ("dog", "cat", "cow", "train") for _, texts in found if all(s in text for text in texts)}
    assert len(subjects) >= 3, subjects
    svg = xml.etree.ElementTree.parse(picture).getroot()
    points = [e for e in svg.iter() if e.tag.endswith("circle")]
    labels = [e.text.strip() for e in svg.iter() if e.tag.endswith("text")]
    assert len(points) == 1428 and labels == [str(n) for n in range(1, 11)], (len(points), labels)
    nowhere = work / "none" / "clusters.svg"
    fails(1, f"cannot write `{nowhere}`", "clustering", "--input", DATA / "honey_bees.txt", "--output", nowhere)


def intent_classification(work):
    blocks = run("intent_classification").split("\n\n")
    assert blocks[0] == "learnt 77 intents from 770 questions"
    want = ["lost or stolen card", "card payment wrong exchange rate", "card swallowed", "age limit", "pin blocked"]
    first = [re.search(r"^ +[\d.]+ %  (.*)$", block, re.MULTILINE)[1] for block in blocks[1:]]
    assert first == want, first


def evaluate(work):
    """In bf16, which promises a Spearman within 0.1 of f32; 81.7 is published for Banking77."""
    text = run("evaluate", "--precision", "bf16")
    spearman = float(re.search(r"cosine +Spearman ([\d.]+)", text)[1])
    accuracy = float(re.search(r"mean of 10 +accuracy ([\d.]+)", text)[1])
    assert "750 pairs" in text and abs(spearman - 91.33) <= 0.1, spearman
    assert "3080 questions" in text and abs(accuracy - 81.7) <= 1.0, accuracy
    fails(1, "`spelling` is not known", "evaluate", "--task", "spelling")


def throughput(work):
    case = json.loads(run("throughput", "--case", "query", "--threads", 2))
    assert (case["case"], case["texts"], case["tokens"], case["threads"]) == ("query", 1, 13, 2), case
    assert 0 < case["seconds_min"] <= case["seconds_median"] <= case["seconds_max"]
    assert abs(case["tokens_per_second"] * case["seconds_median"] / 13 - 1) < 1e-9
    fails(1, "there is no such case", "throughput", "--case", "none")


def paraphrase_mining(work):
    text = run("paraphrase_mining")
    pairs = re.findall(r"^  (\d\.\d{4})  (.*)\n {10}(.*)$", text, re.MULTILINE)
    assert len(pairs) == 15 and falling(pairs) and float(pairs[-1][0]) > 0.95
    for _, one, other in pairs:
        one, other = (set(re.findall(r"\w+", text.lower())) for text in (one, other))
        # Most of their words are the same, and those that are not are forms of a word, or small ones.
        assert len(one & other) >= 0.5 * len(one | other), (one, other)
    assert any("double decker" in texts[0] for _, texts in groups(text)), "a group that is plain to see"
    fails(1, "max_pairs", "paraphrase_mining", "--input", DATA / "honey_bees.txt", "--pairs", 0)


def article():
    """The article that ships with the examples, and the same with each paragraph in one line."""
    text = (DATA / "honey_bees.txt").read_text(encoding="utf-8")
    return text, re.sub(r"(?<=[^\n])\n(?=[^\n])", " ", text)


def extractive_summary(work):
    original, text = article()

    def summary(*flags):
        sentences = re.findall(r"^  (\d\.\d{4})  line +(\d+)  (.*)$", run("extractive_summary", *flags), re.MULTILINE)
        places = [text.index(sentence) for _, _, sentence in sentences]
        assert len(set(places)) == 6 and places == sorted(places), "six of them, in the order of the document"
        assert [original[:place].count("\n") + 1 for place in places] == [int(line) for _, line, _ in sentences]
        return sum(float(score) for score, _, _ in sentences), sentences

    (score, sentences), (central, _) = summary(), summary("--lambda", 1)
    assert score < central, "what gives up some centrality"
    words = " ".join(sentence for _, _, sentence in sentences)
    assert all(word in words for word in ("queen", "winter", "honey", "mite")), "for different parts of the article"
    fails(1, str(work / "none"), "extractive_summary", "--document", work / "none")


def question_answering(work):
    original, text = article()
    passage = re.compile(r"^  \d\.\d{4}  lines (\d+)-(\d+), characters (\d+)\.\.(\d+)\n {10}(.*)$", re.MULTILINE)
    blocks = run("question_answering").split("\n\n")[1:]
    want = ["wagging her body", "Beekeepers use smoke", "the drones become a burden", "crowd together around the queen"]
    assert len(blocks) == len(want)
    for answer, block in zip(want, blocks):
        passages = passage.findall(block)
        assert len(passages) == 2 and answer in passages[0][4], block
        for first, last, start, end, shown in passages:
            start, end = int(start), int(end)
            assert text[start:end] == shown, "the place in characters"
            assert [original[:at].count("\n") + 1 for at in (start, end - 1)] == [int(first), int(last)], "and in lines"
    late = run("question_answering", "--late", "--top", 1, "--question", "Why does a beekeeper use smoke?")
    assert "Beekeepers use smoke" in passage.search(late)[5]
    fails(1, "max_chars", "question_answering", "--passage-chars", 0)
    # A model of 48 tokens: windows that fit it, and a stride that does not.
    document = work / "short.txt"
    document.write_text("The man is here.\n\nHe was old.\n" + "The house was by the river. " * 20)
    short = ["question_answering", "--model", TINY, "--document", document, "--question", "who is here?"]
    for late in ([], ["--late"]):
        shown = run(*short, "--passage-chars", 600, *late)
        assert shown.startswith("2 passages") and "The man is here." in shown, shown
    fails(1, "--stride: is 128, must be less than the 41 tokens", *short, "--stride", 128)


def command_line(name, work):
    """What all have in common: help, and errors for a wrong flag and a wrong directory."""
    done = subprocess.run(command(name, "--help"), cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"usage: {name}") and not done.stderr, done
    fails(2, "--nonsense", name, "--nonsense")
    if name == "from_hub":
        fails(1, "no-such-name", name, "--offline", "--cache", work, "--model", "a/no-such-name")
    elif name != "fetch_model":
        more = ["--output", work / "new"] if name == "save_pretrained" else []
        fails(1, str(work / "nowhere"), name, "--model", work / "nowhere", *more)


def main():
    examples = sorted(path.stem for path in (ROOT / "examples").glob("*.rs"))
    for name in sys.argv[1:] or examples:
        check = globals().get(name)
        assert name in examples and check, f"{name}: not an example, or one whose output is not checked here"
        print(f"\n-- {name}", flush=True)
        start = time.monotonic()
        with tempfile.TemporaryDirectory() as directory:
            command_line(name, Path(directory))
            check(Path(directory))
        print(f"-- {name}: as it should be, in {time.monotonic() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
