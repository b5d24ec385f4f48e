"""What goes over the wire, and the settings: the only definitions, everything else is derived from them."""
