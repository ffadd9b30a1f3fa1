"""Networks that others trained, which some metrics are made of; the user brings the weights."""
