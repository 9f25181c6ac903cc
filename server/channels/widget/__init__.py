"""The web widget: a script on the customer's page, a WebSocket, the demo page."""
