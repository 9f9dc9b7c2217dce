"""Parts of `AdaptiveClipping`."""
