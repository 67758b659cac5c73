"""The same random operations sent to the original and to Keyraft, every answer compared."""
