"""Model servers: starting and ending them, finding them, asking them."""
