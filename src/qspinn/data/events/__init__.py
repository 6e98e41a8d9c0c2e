"""Recordings of event cameras and other sensors of events: readers, bins, and data sets with their splits."""
