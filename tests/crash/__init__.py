"""Members that die at random moments, and what must be there when they come back."""
