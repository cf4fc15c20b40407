"""MPQ-DM (arXiv 2412.11549): few-bit weights with light training."""
