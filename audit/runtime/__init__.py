"""What runs the work: batches, memory, cores, files, interrupts."""
