"""One member: propose, persist, send, apply."""
