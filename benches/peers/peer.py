"""One runtime as a process: reads names of cases from standard input, makes one call for each and prints its seconds; for
`vectors CASE` it prints the embeddings instead, as JSON.

    python peer.py NAME MODEL_DIR TEXTS_JSON THREADS

NAME is one of the keys of PEERS below. TEXTS_JSON maps names of cases to texts. What a runtime does not need is not
imported: process start and memory are measured too.
"""

import json
import os
import pathlib
import sys
import time

SENTENCES = pathlib.Path(__file__).resolve().parents[2] / "examples" / "data" / "sentences.txt"


def torch_f32(model, threads):
    """sentence-transformers on PyTorch, as its documentation calls it."""
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(threads)
    encoder = SentenceTransformer(model, device="cpu")
    return lambda texts: encoder.encode(texts, batch_size=32, show_progress_bar=False)


def torch_bf16(model, threads):
    """The same under autocast."""
    import torch

    encode = torch_f32(model, threads)

    def autocast(texts):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return encode(texts)

    return autocast


def onnx_file(model):
    """The encoder as an ONNX file beside the virtual environment, exported once."""
    path = pathlib.Path(sys.prefix) / "peers" / "model.onnx"
    if not path.exists():
        import torch
        from transformers import AutoModel

        path.parent.mkdir(exist_ok=True)
        encoder = AutoModel.from_pretrained(model, attn_implementation="eager").eval()
        ids = torch.ones((2, 16), dtype=torch.long) * 5
        torch.onnx.export(
            encoder,
            (ids, torch.ones_like(ids)),
            str(path),
            input_names=["input_ids", "attention_mask"],
            output_names=["last_hidden_state"],
            dynamic_axes={"input_ids": {0: "b", 1: "t"}, "attention_mask": {0: "b", 1: "t"}},
            opset_version=17,
            dynamo=False,
        )
    return path


def tokenize(model):
    """A function from texts to their ids and mask, padded, both `[B, T]`."""
    import numpy
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(os.path.join(model, "tokenizer.json"))
    tokenizer.enable_truncation(384)
    tokenizer.enable_padding(pad_id=1, pad_token="<pad>")

    def encode(texts):
        encodings = tokenizer.encode_batch(texts)
        ids = numpy.array([e.ids for e in encodings], dtype=numpy.int64)
        mask = numpy.array([e.attention_mask for e in encodings], dtype=numpy.int64)
        return ids, mask

    return encode


def batches(model, run):
    """Texts of similar length together, 32 at a time, padded; mean pooling; unit length; the caller's order."""
    import numpy

    tokens = tokenize(model)

    def encode(texts):
        order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
        rows = [None] * len(texts)
        for start in range(0, len(order), 32):
            chunk = order[start : start + 32]
            ids, mask = tokens([texts[i] for i in chunk])
            hidden = run(ids, mask)
            weights = mask[..., None].astype(numpy.float32)
            pooled = (hidden * weights).sum(1) / weights.sum(1)
            pooled /= numpy.linalg.norm(pooled, axis=1, keepdims=True)
            for i, row in zip(chunk, pooled):
                rows[i] = row
        return numpy.stack(rows)

    return encode


def onnxruntime(model, threads, path):
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run(ids, mask):
        return session.run(["last_hidden_state"], {"input_ids": ids, "attention_mask": mask})[0]

    return batches(model, run)


def onnxruntime_f32(model, threads):
    return onnxruntime(model, threads, onnx_file(model))


def onnxruntime_int8(model, threads):
    """Dynamic quantisation, as its documentation calls it."""
    path = onnx_file(model)
    quantized = path.with_name("model-int8.onnx")
    if not quantized.exists():
        from onnxruntime.quantization import QuantType, quantize_dynamic

        quantize_dynamic(str(path), str(quantized), weight_type=QuantType.QInt8)
    return onnxruntime(model, threads, quantized)


def openvino(model, threads, precision, path):
    import openvino

    core = openvino.Core()
    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": precision,
        "PERFORMANCE_HINT": "LATENCY",
    }
    compiled = core.compile_model(core.read_model(path), "CPU", settings)
    request = compiled.create_infer_request()

    def run(ids, mask):
        return request.infer({"input_ids": ids, "attention_mask": mask})["last_hidden_state"]

    return batches(model, run)


def openvino_f32(model, threads):
    return openvino(model, threads, "f32", onnx_file(model))


def openvino_bf16(model, threads):
    return openvino(model, threads, "bf16", onnx_file(model))


def openvino_int8(model, threads):
    """Post-training quantisation by NNCF for transformers. What is not quantised runs in bf16 where the machine has it,
    which is OpenVINO's own choice."""
    path = onnx_file(model)
    quantized = path.with_name("model-int8.xml")
    if not quantized.exists():
        import nncf
        import openvino as ov

        tokens = tokenize(model)
        sentences = SENTENCES.read_text(encoding="utf-8").splitlines()
        inputs = [dict(zip(("input_ids", "attention_mask"), tokens([text]))) for text in sentences[::5]]
        result = nncf.quantize(
            ov.Core().read_model(path),
            nncf.Dataset(inputs),
            subset_size=len(inputs),
            model_type=nncf.ModelType.TRANSFORMER,
            # The default, 0.95, ends farther from float64: lowest cosines over the 24 texts of 0.85, here of 0.92. With texts of
            # up to 12 sentences both are at 0.90.
            advanced_parameters=nncf.AdvancedQuantizationParameters(
                smooth_quant_alphas=nncf.AdvancedSmoothQuantParameters(matmul=0.6)
            ),
        )
        ov.save_model(result, quantized, compress_to_fp16=False)
    try:
        return openvino(model, threads, "bf16", quantized)
    except RuntimeError:
        # It cannot compile for bf16 where the instructions are not there or not allowed, though it may name bf16 among what
        # it is capable of.
        return openvino(model, threads, "f32", quantized)


PEERS = {
    "torch-f32": torch_f32,
    "torch-bf16": torch_bf16,
    "onnxruntime-f32": onnxruntime_f32,
    "onnxruntime-int8": onnxruntime_int8,
    "openvino-f32": openvino_f32,
    "openvino-bf16": openvino_bf16,
    "openvino-int8": openvino_int8,
}


def main():
    name, model, texts, threads = sys.argv[1:]
    # Whatever a library prints goes to standard error: standard output is for answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["TOKENIZERS_PARALLELISM"] = "true"
    with open(texts, encoding="utf-8") as file:
        cases = json.load(file)
    encode = PEERS[name](model, int(threads))
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        request, case = line.split() if " " in line else ("seconds", line.strip())
        start = time.perf_counter()
        vectors = encode(cases[case])
        seconds = time.perf_counter() - start
        answer = json.dumps(vectors.tolist()) if request == "vectors" else seconds
        print(answer, file=answers, flush=True)


if __name__ == "__main__":
    main()
