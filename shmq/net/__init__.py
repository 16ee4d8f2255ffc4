"""L3: asyncio connections and listeners: bytes to commands and back."""
