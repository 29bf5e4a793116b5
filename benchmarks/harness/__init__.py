"""What benchmarks share: timing, machines, and processes."""
