"""Looking into any `nn.Module`. Knows no model of ours and no data."""
