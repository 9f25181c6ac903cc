"""What can be done: plug-in domains, one folder each, and the kit they are made with (tools.sdk)."""
