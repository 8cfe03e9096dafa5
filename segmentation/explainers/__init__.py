"""Where explanations come from: measurement, the annotator's own words, a server, a local model."""
