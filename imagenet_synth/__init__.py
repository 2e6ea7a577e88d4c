"""Class-conditional diffusion cascades as a source of training data (Azizi et al., 2023)."""
