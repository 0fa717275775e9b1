"""Live streams of a worker: what they watch, and how changes reach them."""
