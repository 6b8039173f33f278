"""Observers: what a sync tells of itself, as a progress bar, log records with fields, or traces and metrics.

An observer is any function of an event; give it to `run_full_sync(..., observers=[...])`.

| module | holds |
| --- | --- |
| `observers.rich` | `RichProgress` |
| `observers.tqdm` | `TqdmProgress` |
| `observers.log` | `StructuredLog` |
| `observers.opentelemetry` | `OpenTelemetryObserver` |
"""
