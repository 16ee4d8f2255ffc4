"""L3: producers, consumers, routes, direct reader, admin client."""
