"""What a network costs to run: parameters, multiply-adds, latency and file size."""
