"""Recorded bags through the stream: read, plan, run, write. Needs no ROS."""
