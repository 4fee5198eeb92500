"""Running experiments: files, claims, checkpoints, results, provenance and reports."""
