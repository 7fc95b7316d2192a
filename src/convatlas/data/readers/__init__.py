"""One reader per way in which data comes. Each returns a `Reading`."""
