"""GPT-2 itself: its shape, its layers, its cache, and its files."""
