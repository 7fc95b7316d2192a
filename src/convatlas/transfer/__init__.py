"""A pretrained network onto new classes: what is frozen and opened, and which way of doing so is best for these images."""
