"""Measuring: how fast a voice is on this machine, and how good at that speed."""
