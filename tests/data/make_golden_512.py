"""The embedding of one text of 512 tokens by the real all-mpnet-base-v2 in float64, written to golden_512.json.

    python make_golden_512.py MODEL_DIR      (versions: requirements.txt)
"""

import json
import pathlib
import sys

import torch
import transformers

model = sys.argv[1]
tokenizer = transformers.AutoTokenizer.from_pretrained(model)
encoder = transformers.AutoModel.from_pretrained(model, attn_implementation="eager").double().eval()
text = " ".join(f"Sentence {i} is about {word} and what it costs." for i, word in enumerate(
    ["bread", "rivers", "a violin", "taxes", "winter", "the moon", "horses", "glass", "letters", "salt"] * 6))
whole = tokenizer(text)["input_ids"]
ids = tokenizer(text, truncation=True, max_length=512)["input_ids"]
assert len(ids) == 512 < len(whole)
with torch.no_grad():
    hidden = encoder(input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, 512, dtype=torch.long))[0]
pooled = hidden.mean(1)[0]
golden = {
    "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    "text": text,
    "dropped": len(whole) - 512,
    "embedding": [round(x, 12) for x in (pooled / pooled.norm()).tolist()],
}
(pathlib.Path(__file__).parent / "golden_512.json").write_text(json.dumps(golden) + "\n", encoding="utf-8")
