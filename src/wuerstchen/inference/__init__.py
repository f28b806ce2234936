"""From a prompt to images: pipeline, cascade, sampling, settings and their metadata."""
