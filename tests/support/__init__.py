"""What tests share: servers, databases, tenants, a scripted model."""
