"""Many runs: plan, run, and say what they show together."""
