"""The quick start: real files through a real broker, and proof that they came out as they went in."""
