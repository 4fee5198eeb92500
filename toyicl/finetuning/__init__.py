"""In-context learning compared with finetuning: updates, similarity measures and baselines."""
