"""What workers do. Jobs take ids, may run twice, and are found again by the sweep."""
