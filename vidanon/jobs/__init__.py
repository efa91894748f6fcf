"""Many files, or the segments of one, on several workers: resumable, on one machine or on a cluster."""
