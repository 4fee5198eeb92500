"""In-context learning compared with finetuning: updates, similarity measures and baselines."""

from toyicl.finetuning.updates import PARAMETERS, finetune, layer_causal, plain, published

__all__ = ["PARAMETERS", "finetune", "layer_causal", "plain", "published"]
