#!/usr/bin/env python3
"""Clients train through the server that users have, killed at random moments: tests/fault/kill_loop.py,
which also kills at named points where the program has them."""
import os
import sys

LOOP = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../fault/kill_loop.py")
os.execv(sys.executable, [sys.executable, LOOP, "--kills", "25", *sys.argv[1:]])
