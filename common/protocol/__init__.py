"""What crosses the network: orders and replies, their bytes, and the declaration of what may travel."""
