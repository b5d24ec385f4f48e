"""`roompulse provision`: make the topics."""
