"""Kafka, Faust and the process around the pure pipeline."""
