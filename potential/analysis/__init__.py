"""Questions put to a model: how fast it is, and where the time goes."""
