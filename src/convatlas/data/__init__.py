"""Data sets: reading, checking, generating and batching them. Knows no model."""
