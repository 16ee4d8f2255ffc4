"""How fast this build is on this machine, as ratios to the machine's own limits in the same run."""
