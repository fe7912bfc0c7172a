"""Heterogeneous audio classification with frozen audio-language embeddings (DCASE 2026 Task 1).

The modules form one order, from what exists (errors, taxonomy, config) over files, metric, data,
embeddings, models and findings to people and processes (report, runner, cli). Each imports only
what stands before it; ``tests/test_layers.py`` holds the list. Nothing happens on import.
"""

__version__ = "0.1.0"
