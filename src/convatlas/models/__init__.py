"""The landmark families, one file each, and the registry of their variants."""
