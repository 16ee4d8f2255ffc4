"""What runs inside a client process: takes jobs, applies load by one driver, answers with figures."""
