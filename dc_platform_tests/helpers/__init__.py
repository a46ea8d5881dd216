"""Builders and strategies that several tests share."""
