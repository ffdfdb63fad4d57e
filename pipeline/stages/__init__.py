"""The stages, each a function or small class that knows nothing of the runners."""
