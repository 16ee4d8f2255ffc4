"""One module per client library; each exports `Driver` (see driver.py). Loaded only in client processes."""
