"""What stands between clients and members."""
