"""Torch parts that two or more families share."""
