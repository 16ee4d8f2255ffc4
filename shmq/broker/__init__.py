"""L4: broker rules: topics, groups, clients, offsets, held pulls. No sockets, no frames."""
