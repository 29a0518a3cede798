"""Early-exit inference: each image leaves at the first exit that is confident enough."""
