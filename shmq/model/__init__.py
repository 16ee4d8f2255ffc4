"""L1: messages, records, ids, subscriptions, routes, settings. Pure."""
