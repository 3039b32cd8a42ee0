"""Verdicts on numbers of an audit: gates, how they are judged, and how verdicts are shown. Reads files, no models."""
