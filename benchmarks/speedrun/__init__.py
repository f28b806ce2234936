"""From sprites to a trained model by a fixed clock: compose, Stage A, Stage B, Stage C, scores."""
