"""Foundations of every room: steps and manifests, storage, tables, shards, Ray sessions, processes, errors."""
