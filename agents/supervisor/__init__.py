"""The supervisor: nothing comes in or goes out without it."""
