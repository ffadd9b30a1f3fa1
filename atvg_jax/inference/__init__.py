"""From a checkpoint to talking faces and portable artifacts."""
