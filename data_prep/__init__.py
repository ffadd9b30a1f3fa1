"""From videos to TFRecords."""
