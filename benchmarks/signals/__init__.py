"""How good the signals are: figures against the simulator's truth and labelled data."""
