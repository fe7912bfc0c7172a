"""Heterogeneous audio classification with frozen audio-language embeddings (DCASE 2026 Task 1).

The modules form one order, read left to right; each imports only what stands before it
(``tests/test_layers.py`` holds the list):

| errors, taxonomy, paths, config | io, schema, results | metrics, stats |
| compat, audio, synth, datasets, splits | encoders, extract | heads, finetune, pseudo_labels, ensemble |
| ambiguity, plotting, submission | tables, report, runner, cli |

Nothing happens on import.
"""

__version__ = "0.1.0"
