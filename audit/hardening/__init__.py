"""Fine-tuning a served model against an adversary, and giving it back in its own format."""
