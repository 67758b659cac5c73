"""Users, roles and permissions. Pure."""
