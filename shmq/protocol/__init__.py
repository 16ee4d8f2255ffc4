"""L2: frames, commands, header codecs, typed headers, bodies. No I/O."""
