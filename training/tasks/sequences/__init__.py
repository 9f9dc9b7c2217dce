"""Tasks on recorded sequences: images, music, speech, time series."""
