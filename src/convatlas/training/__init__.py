"""One recipe in, one run folder out."""
