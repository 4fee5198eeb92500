"""Record the logits of a language model by PyTorch and `transformers`, an independent implementation.

Writes tests/helpers/logits.json, with which tests/language/test_logits.py compares. `transformers`
reads the tokens and the weights of the GGUF file itself. It is not a dependency of toyicl; in an
environment with torch, transformers, gguf and numpy:

    python benchmarks/logits_oracle.py PATH/OF/THE/MODEL.gguf
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

PROMPTS = (
    "The capital of France is",
    "Review: the film was wonderful.\nLabel:",
    "Once upon a time, there was a",
    "def add(a, b):\n    return a +",
    "2, 4, 6, 8, 10,",
    "Water boils at 100 degrees",
    "Review: the film was awful.\nLabel: B\nReview: the film was great.\nLabel: A\n"
    "Review: the film was dull.\nLabel:",
    "To be, or not to be, that is the",
    "In 1969 the first human walked on the",
    "Die Größe ist 3.50 m, nicht 4",
)
SAMPLED = 300
"""Number of tokens, drawn at random, whose logits are recorded."""
TOP = 5
"""Number of tokens with the largest logits that are recorded."""
OUT = Path(__file__).parents[1] / "tests" / "helpers" / "logits.json"


def main() -> None:
    """Compute and write the logits after the last token of each prompt."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    path = Path(sys.argv[1])
    options: dict[str, Any] = {"gguf_file": path.name}
    tokenizer = AutoTokenizer.from_pretrained(str(path.parent), **options)
    model = AutoModelForCausalLM.from_pretrained(
        str(path.parent), **options, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    generator = np.random.default_rng(0)
    records = []
    for prompt in PROMPTS:
        tokens = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            logits = model(torch.tensor([tokens])).logits[0, -1].double().numpy()
        top = np.argsort(-logits)[:TOP]
        sampled = np.sort(generator.choice(len(logits), SAMPLED, replace=False))
        records.append(
            {
                "prompt": prompt,
                "tokens": tokens,
                "top": top.tolist(),
                "top_logits": np.round(logits[top], 5).tolist(),
                "sampled": sampled.tolist(),
                "sampled_logits": np.round(logits[sampled], 5).tolist(),
            }
        )
    found = {
        "model": path.name,
        "made_by": f"transformers, torch {torch.__version__}, float32, on a CPU",
        "records": records,
    }
    OUT.write_text(json.dumps(found) + "\n", encoding="utf-8")  # noqa: TID251 (no toyicl here)
    print(f"wrote {OUT}")


if __name__ == "__main__":
    main()
