"""Execution of long work: batches, memory, cores, files, interrupts."""
