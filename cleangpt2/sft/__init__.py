"""Supervised fine-tuning: from a base model to one that answers in a format, and stops."""
