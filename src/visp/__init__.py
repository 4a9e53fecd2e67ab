"""visp: an event-driven serverless platform that speaks Apache OpenWhisk's protocol."""

__version__ = "0.1.0"
