"""What checks the code for known ways to be insecure, and the map from OWASP's requirements to the tests that prove them."""
