"""Linear models: least squares of any size, ridge and relevance by evidence or cross-validation."""
