"""What the service remembers: records in a store, bytes in a blob store."""
