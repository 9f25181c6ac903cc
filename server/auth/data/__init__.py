"""Tables that signing in reads; README.md says where they come from."""
