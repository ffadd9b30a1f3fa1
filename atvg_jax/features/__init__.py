"""What a clip is measured by: sound, faces, landmarks, video."""
