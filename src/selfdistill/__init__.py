"""Self-distillation for vision networks."""
