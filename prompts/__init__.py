"""Text that prompt engineers edit, and its loader. Imports nothing of ours."""
