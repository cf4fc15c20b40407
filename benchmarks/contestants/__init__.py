"""Contestants of speed.py and peers.py, and the processes that run them.

One file per tool. What runs in a contestant's own environment (`worker` and the tools' files)
imports nothing of mezzotint unless the contestant is mezzotint itself.
"""
