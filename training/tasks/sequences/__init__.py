"""Tasks of recorded sequences: images, music, speech, time series."""
