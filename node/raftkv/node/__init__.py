"""The whole node without asyncio: events in, effects out."""
