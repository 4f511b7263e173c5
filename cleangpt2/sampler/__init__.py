"""From logits to the next id: filters, noise and the decoding loop. It speaks ids, never text."""
