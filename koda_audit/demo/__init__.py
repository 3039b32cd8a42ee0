"""The offline demo: coloured scanned digits, and three small CLIP models that see them differently."""
