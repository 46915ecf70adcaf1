"""The proofs: the only place that knows both twins; they meet in files, never in one process."""
