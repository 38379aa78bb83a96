"""The learner: from training examples to an optimizer step, on every rank."""
