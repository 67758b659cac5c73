"""The services as clients see them."""
