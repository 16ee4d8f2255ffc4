"""The storm: processes die at random under load; what was promised is compared with what is there."""
