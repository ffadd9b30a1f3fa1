"""TFRecord examples and the batches made of them."""
