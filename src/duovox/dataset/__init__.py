"""Data sets in bulk: what is wanted -> a plan, cut into shards -> made by any number of processes -> sounds, lists and a manifest."""
