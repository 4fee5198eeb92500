"""Pretrained language models: a Llama-like decoder, loaded from a file, with its activations."""
