"""All state: database, queue, vectors, files. Imports nothing of ours."""
